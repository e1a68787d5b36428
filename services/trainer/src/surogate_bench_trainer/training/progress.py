"""Progress reports, at most two a second."""

import time
from pathlib import Path

from surogate_bench.progress import Progress, write_progress

_INTERVAL_S = 0.5


class ProgressReporter:
    """Writes ``progress.json``; a report that comes too soon after another of the same phase is dropped."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._phase = ""
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Report."""
        now = time.monotonic()
        if progress.phase == self._phase and now < self._next and progress.step != progress.total:
            return
        write_progress(self._work_dir, progress)
        self._phase, self._next = progress.phase, now + _INTERVAL_S
