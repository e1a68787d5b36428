"""Fit an lm-eval task to a sweep."""

import json
from pathlib import Path
from typing import Any

import yaml

from surogate_bench.specs.data import DataSpec
from surogate_bench.specs.sweep import RecipeSweep


def render_task(base: Path, sweep: RecipeSweep, *, data: Path, folder: Path) -> Path:
    """Write the task that lm-eval reads: the base task on the sweep's data, prompt and examples.

    Prompts are written out beside it, as fields of the records: lm-eval would compile a template anew for every use of
    every record, which takes as long as all else that it does.

    Args:
        base: The task's own file, which the new one includes.
        sweep: What to fit it to.
        data: Folder with test.jsonl, and train.jsonl where examples are shown; records of question and answer.
        folder: Where to write; holds nothing else.

    Returns:
        The task file, named after the task.
    """
    few_shot = sweep.evaluation.num_fewshot > 0
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split in ("train", "test") if few_shot else ("test",):
        files[split] = str((folder / f"{split}.jsonl").resolve())
        _write_out(data / f"{split}.jsonl", folder / f"{split}.jsonl", sweep.data)
    document: dict[str, Any] = {
        "include": str(base),
        "task": sweep.evaluation.task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "training_split": "train" if few_shot else None,
        "fewshot_split": "train" if few_shot else None,
        "test_split": "test",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "num_fewshot": sweep.evaluation.num_fewshot,
        # Examples read as the model was trained: prompt and completion joined as they are.
        "fewshot_config": {"doc_to_target": "completion", "target_delimiter": ""},
    }
    path = folder / f"{sweep.evaluation.task}.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def _write_out(source: Path, target: Path, data: DataSpec) -> None:
    """Copy records of question and answer, adding prompt and completion."""
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        for record in (json.loads(line) for line in lines if line.strip()):
            record["prompt"] = data.prompt.replace("{question}", record["question"])
            record["completion"] = data.completion.replace("{answer}", record["answer"])
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
