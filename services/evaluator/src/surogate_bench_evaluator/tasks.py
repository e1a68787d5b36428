"""Find the YAML of an lm-eval task, and fit it to a sweep.

A task ``name`` lives in a file ``name.yaml``. The files that come with surogate-bench lie in ``configs/tasks``: below
the folder that SUROGATE_BENCH_CONFIGS names (container images set it), or else of the checkout this package is in.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from surogate_bench.errors import ConfigError
from surogate_bench.specs.data import DataSpec
from surogate_bench.specs.sweep import RecipeSweep

CONFIGS_VARIABLE = "SUROGATE_BENCH_CONFIGS"


@dataclass(frozen=True, slots=True)
class TaskFolders:
    """Folders that tasks are looked for in; the first that has a task wins."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, tasks_dir: Path | None) -> Self:
        """Look in the user's folder, where there is one, and then among the tasks that come along.

        Raises:
            ConfigError: the user's folder does not exist.
        """
        if tasks_dir is not None and not tasks_dir.is_dir():
            raise ConfigError(
                "is not a folder",
                field="evaluation.tasks_dir",
                value=str(tasks_dir),
                remedy="Give a folder of task YAMLs, or leave it out.",
            )
        return cls(tuple(folder for folder in (tasks_dir, builtin_tasks()) if folder is not None))

    def find(self, task: str) -> Path:
        """Find a task's file.

        Raises:
            ConfigError: there is none; names those there are.
        """
        for folder in self.folders:
            path = folder / f"{task}.yaml"
            if path.is_file():
                return path.resolve()
        known = sorted({path.stem for folder in self.folders for path in folder.glob("[!_]*.yaml")})
        raise ConfigError(
            "there is no such task",
            field="evaluation.task",
            value=task,
            remedy=f"Choose one of {', '.join(known) or '(none found)'}, or add {task}.yaml to evaluation.tasks_dir "
            f"(looked in {', '.join(map(str, self.folders)) or 'no folder'}).",
        )


def builtin_tasks() -> Path | None:
    """Folder of the tasks that come with surogate-bench; None where they are not installed."""
    configured = os.environ.get(CONFIGS_VARIABLE)
    candidates = [Path(configured)] if configured else [parent / "configs" for parent in Path(__file__).parents]
    return next((folder / "tasks" for folder in candidates if (folder / "tasks").is_dir()), None)


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
