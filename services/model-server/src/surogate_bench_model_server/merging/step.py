"""The step before vLLM: where the merged checkpoint is to be, and the command that makes it and becomes vLLM."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from surogate_bench_model_server.merging.plan import merge_plan, require_room

_FOLDER = "merged"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeStep:
    """One adapter and one base model."""

    base: Path
    """Folder of the published model."""
    adapter: Path
    """Folder of the adapter."""
    target: Path
    """Folder of the merged model: complete, or absent."""

    def command(self, following: list[str]) -> list[str]:
        """Return the command that merges, unless that is done, and is replaced by another one."""
        own = [str(path) for path in (self.base, self.adapter, self.target)]
        return [sys.executable, "-P", "-m", __package__, *own, *following]


def plan_step(base: Path, adapter: Path, work_dir: Path) -> MergeStep:
    """Check that an adapter can be merged and that there is room for it; files left by an earlier start are removed.

    Raises:
        ConfigError: it cannot be merged into this base, or the disk is too small.
        PermanentError: a file cannot be read.
    """
    remove_merged(work_dir)
    step = MergeStep(base=base, adapter=adapter, target=work_dir / _FOLDER / adapter.name)
    require_room(base, merge_plan(base, adapter), step.target)
    return step


def remove_merged(work_dir: Path) -> None:
    """Remove merged checkpoints, which are as large as the model."""
    shutil.rmtree(work_dir / _FOLDER, ignore_errors=True)
