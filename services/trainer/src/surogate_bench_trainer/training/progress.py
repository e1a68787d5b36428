"""Progress reports, at most two per second."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from surogate_bench.processes.progress import Progress, write_progress

_INTERVAL_S = 0.5


class ProgressReporter:
    """Writes ``progress.json``, and skips a report that follows another of the same phase too soon.

    Args:
        work_dir: Folder of the file.
        memory: Returns the memory in use (bytes), which is added to every report.
    """

    def __init__(self, work_dir: Path, memory: Callable[[], int]) -> None:
        self._work_dir = work_dir
        self._memory = memory
        self._phase = ""
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Write a report, unless one of the same phase was written just before."""
        now = time.monotonic()
        if progress.phase == self._phase and now < self._next and progress.step != progress.total:
            return
        write_progress(self._work_dir, progress.model_copy(update={"memory_bytes": self._memory()}))
        self._phase, self._next = progress.phase, now + _INTERVAL_S


def memory_in_use(device: torch.device) -> int:
    """Return the memory in use, in bytes: allocated device memory on a GPU, resident set size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
