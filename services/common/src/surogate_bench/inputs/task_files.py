"""Find the YAML of an lm-eval task.

A task ``name`` is in a file ``name.yaml``, or is one of lm-eval's own (:data:`STOCK_TASKS`). The files that come
with surogate-bench are in ``configs/tasks``: below the folder that SUROGATE_BENCH_CONFIGS names (container images set
it), or else of the checkout this package is in.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Self

from surogate_bench.contract import CONFIGS_VARIABLE
from surogate_bench.errors import ConfigError, PermanentError

STOCK_TASKS: Mapping[str, str] = MappingProxyType({"gsm8k": "gsm8k/gsm8k.yaml"})
"""Tasks of lm-eval with both scores of the report, by file in its folder ``tasks``.

The evaluator's image holds no others.
"""


@dataclass(frozen=True, slots=True)
class TaskFolders:
    """Folders that are searched for tasks; the first that has a task wins."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, tasks_dir: Path | None) -> Self:
        """Return the user's folder, if there is one, followed by that of the shipped tasks.

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
        """Find a task's file, where lm-eval is installed.

        Raises:
            ConfigError: there is none; names those there are.
            PermanentError: it is lm-eval's own, which is not installed here.
        """
        if (own := self.own(task)) is not None:
            return own
        if (found := _in_collection(task)) is None:
            self.require(task)
            raise PermanentError("lm-eval is not installed here")
        return found

    def require(self, task: str) -> None:
        """Check that there is such a task, whether or not lm-eval is installed here.

        Raises:
            ConfigError: there is none; names those there are.
        """
        if task in STOCK_TASKS or self.own(task) is not None or _in_collection(task) is not None:
            return
        own = {path.stem for folder in self.folders for path in folder.glob("[!_]*.yaml")}
        known = sorted({*own, *STOCK_TASKS})
        raise ConfigError(
            "there is no such task",
            field="evaluation.task",
            value=task,
            remedy=f"Choose one of {', '.join(known)}, another of lm-eval's collection if it is installed here, or add "
            f"{task}.yaml to its tasks_dir "
            f"(folders searched: {', '.join(map(str, self.folders)) or 'none'}).",
        )

    def own(self, task: str) -> Path | None:
        """Return a task's file in one of the folders; None if there is none, as for lm-eval's own."""
        files = (folder / f"{task}.yaml" for folder in self.folders)
        return next((path.resolve() for path in files if path.is_file()), None)


@cache
def _in_collection(task: str) -> Path | None:
    """Return a task's file in lm-eval's own collection; None if it has none, or is not installed here.

    Most files are named after their task; groups of tasks have no file that scores anything.
    """
    package = find_spec("lm_eval")  # imports nothing
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(package.submodule_search_locations[0]) / "tasks"
    if task in STOCK_TASKS:
        return folder / STOCK_TASKS[task]
    named = re.compile(rf"^task:\s*[\"']?{re.escape(task)}[\"']?\s*$", re.MULTILINE)
    paths = sorted(folder.rglob("*.y*ml"), key=lambda path: (path.stem != task, str(path)))
    return next((path for path in paths if named.search(path.read_text(encoding="utf-8"))), None)


def builtin_tasks() -> Path | None:
    """Return the folder of the shipped tasks; None where they are not installed."""
    configured = os.environ.get(CONFIGS_VARIABLE)
    candidates = [Path(configured)] if configured else [parent / "configs" for parent in Path(__file__).parents]
    return next((folder / "tasks" for folder in candidates if (folder / "tasks").is_dir()), None)
