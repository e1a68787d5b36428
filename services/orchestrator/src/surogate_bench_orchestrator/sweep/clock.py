"""Real time."""

import time

from typing_extensions import override

from surogate_bench_orchestrator.ports import Clock


class SystemClock(Clock):
    """The monotonic clock of the operating system."""

    @override
    def now(self) -> float:
        return time.monotonic()

    @override
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
