"""Progress reports, at most two a second."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from surogate_bench.progress import Progress, write_progress

_INTERVAL_S = 0.5


class ProgressReporter:
    """Writes ``progress.json``; a report that comes too soon after another of the same phase is dropped.

    Args:
        work_dir: Folder of the file.
        memory: Gives the memory in use, bytes; it is added to every report.
    """

    def __init__(self, work_dir: Path, memory: Callable[[], int]) -> None:
        self._work_dir = work_dir
        self._memory = memory
        self._phase = ""
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Report."""
        now = time.monotonic()
        if progress.phase == self._phase and now < self._next and progress.step != progress.total:
            return
        write_progress(self._work_dir, progress.model_copy(update={"memory_bytes": self._memory()}))
        self._phase, self._next = progress.phase, now + _INTERVAL_S


def memory_in_use(device: torch.device) -> int:
    """Memory in use now, bytes: of the device on a GPU, resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
