"""Adapt an lm-eval task to a sweep."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from surogate_bench.contract import DATA_FOLDER, split_file, task_file
from surogate_bench.errors import ConfigError
from surogate_bench.inputs.content import MULTIPLE_CHOICE
from surogate_bench.inputs.task_files import TaskFolders
from surogate_bench.results import PrepareResult
from surogate_bench.specs.data import DataSpec
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.stages.local_inputs import require_unchanged
from surogate_bench.stages.prepared import prompt_and_completion
from surogate_bench.stages.publication import fetch_stage
from surogate_bench.stages.requests import CheckRequest, EvaluateRequest
from surogate_bench.store.object_store import ObjectStore

FEWEST_RECORDS = 2
"""Minimum number of records: a standard error divides by n - 1."""


def prepare_task(request: CheckRequest | EvaluateRequest, store: ObjectStore, work_dir: Path) -> Path:
    """Fetch the test data and write the task file that lm-eval reads, of the request's task.

    Raises:
        ConfigError: the task is unknown or was changed since it was prepared, or there are too few test records.
        PermanentError: the data was not prepared.
    """
    sweep = request.sweep.of_task(request.task)
    evaluation = sweep.evaluation
    base = TaskFolders.of(evaluation.tasks_dir).find(evaluation.task)
    data = work_dir / "prepare" / DATA_FOLDER
    prepared = fetch_stage(store, request.layout.prepare, work_dir / "prepare", under=f"{DATA_FOLDER}/")
    require_unchanged(prepared.require_result(PrepareResult), request.sweep, ["tasks", "further_tasks"])
    test = split_file("test") if request.task is None else task_file(request.task)
    if "data" not in evaluation.keep_from_task:
        with (data / test).open(encoding="utf-8") as lines:
            records = min(sum(1 for line in lines if line.strip()), evaluation.limit or sys.maxsize)
        require_records(records)
    return render_task(base, sweep, data=data, folder=work_dir / "task", test=test)


def require_records(records: int) -> None:
    """Check that there are enough records for a standard error.

    Raises:
        ConfigError: there are not.
    """
    if records < FEWEST_RECORDS:
        raise ConfigError(
            "are too few test records for a standard error",
            field="data.test_size",
            value=records,
            remedy=f"Score at least {FEWEST_RECORDS}: raise test_size or limit.",
        )


def render_task(base: Path, sweep: RecipeSweep, *, data: Path, folder: Path, test: str = split_file("test")) -> Path:
    """Write the task that lm-eval reads: the base task with the sweep's data, prompt and examples.

    Parts in ``evaluation.keep_from_task`` are those of the base task.

    Prompts are written next to it, as fields of the records: lm-eval would compile a template again for every use of
    every record, which doubles its time.

    Args:
        base: The task's own file, which the new one includes.
        sweep: The sweep to adapt it to.
        data: Folder with test.jsonl, and train.jsonl where examples are shown; records of question and answer.
        folder: Folder to write to; contains nothing else.
        test: Name of the file in ``data`` with the questions.

    Returns:
        The task file, named after the task.
    """
    evaluation = sweep.evaluation
    kept = evaluation.keep_from_task
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"include": str(base), "task": evaluation.task}
    if "data" not in kept:
        document |= _sweep_data(sweep, data=data, folder=folder, test=test)
    else:
        document |= _own_data(base)
    if "prompt" not in kept:
        document |= _sweep_prompt(base)
    if "num_fewshot" not in kept:
        document["num_fewshot"] = evaluation.num_fewshot
    path = folder / f"{evaluation.task}.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def _sweep_prompt(base: Path) -> dict[str, Any]:
    """Return the sweep's prompt; the choices of a task of multiple choice are its own."""
    if _chooses(base):
        return {"doc_to_text": "prompt"}
    return {
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        # Examples are formatted as in training: prompt and completion, concatenated.
        "fewshot_config": {"doc_to_target": "completion", "target_delimiter": ""},
    }


def _chooses(base: Path) -> bool:
    """Return whether a task is of multiple choice; False for one that cannot be read, which lm-eval refuses later."""
    try:
        return bool(_read_task(base).get("output_type") == MULTIPLE_CHOICE)
    except (yaml.YAMLError, ValueError, OSError):
        return False


def _sweep_data(sweep: RecipeSweep, *, data: Path, folder: Path, test: str) -> dict[str, Any]:
    few_shot = sweep.evaluation.num_fewshot > 0 or "num_fewshot" in sweep.evaluation.keep_from_task
    files = {}
    for split in ("train", "test") if few_shot else ("test",):
        files[split] = str((folder / split_file(split)).resolve())
        source = data / (test if split == "test" else split_file(split))
        _write_out(source, folder / split_file(split), sweep.data)
    return {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "training_split": "train" if few_shot else None,
        "fewshot_split": "train" if few_shot else None,
        "test_split": "test",
    }


def _own_data(base: Path) -> dict[str, Any]:
    """Resolve files of a task's own data relative to the task's file, if they exist there."""

    def located(value: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
        if isinstance(value, dict):
            return {key: located(item) for key, item in value.items()}
        if isinstance(value, list):
            return [located(item) for item in value]
        if isinstance(value, str) and (base.parent / value).exists():
            return str((base.parent / value).resolve())
        return value

    arguments = _read_task(base).get("dataset_kwargs")
    if not isinstance(arguments, dict):
        return {}
    files = {key: located(arguments[key]) for key in ("data_files", "data_dir") if key in arguments}
    return {"dataset_kwargs": arguments | files}


def _read_task(base: Path) -> dict[str, Any]:
    """Read a task's file with what it includes, and without importing the functions that it names."""
    from lm_eval.tasks._yaml_loader import load_yaml  # noqa: PLC0415 - takes a second to import

    return dict(load_yaml(base, resolve_func=False))


def _write_out(source: Path, target: Path, data: DataSpec) -> None:
    """Copy records, and add what they lack of question, answer, prompt and completion."""
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        for record in (json.loads(line) for line in lines if line.strip()):
            prompt, completion = prompt_and_completion(record, data)
            texts = {"question": prompt, "answer": completion} | record | {"prompt": prompt, "completion": completion}
            out.write(json.dumps(texts, ensure_ascii=False) + "\n")
