"""Find the YAML of an lm-eval task.

A task ``name`` lives in a file ``name.yaml``. The files that come with surogate-bench lie in ``configs/tasks``: below
the folder that SUROGATE_BENCH_CONFIGS names (container images set it), or else of the checkout this package is in.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from surogate_bench.errors import ConfigError

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
