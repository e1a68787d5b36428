"""A clock that a test moves."""

from collections.abc import Callable

from typing_extensions import override

from surogate_bench_orchestrator.ports import Clock


class FakeClock(Clock):
    """Time that passes only in sleep.

    Args:
        each: Called after every sleep.
    """

    def __init__(self, each: Callable[[], None] = lambda: None) -> None:
        self.time = 0.0
        self.naps: list[float] = []
        """What was slept."""
        self._each = each

    @override
    def now(self) -> float:
        return self.time

    @override
    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.naps.append(seconds)
        self._each()
