"""Real time."""

import time


class SystemClock:
    """See :class:`surogate_bench_orchestrator.ports.Clock`."""

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
