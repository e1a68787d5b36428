"""An estimate of when the stage that a row shows will end."""

from dataclasses import replace

from surogate_bench_orchestrator.sweep.rows import ProgressRow


class Pace:
    """Estimates when stages end from the steps observed so far; the time before the first step is left out."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, int, int, float]] = {}

    def estimate(self, row: ProgressRow, now: float) -> ProgressRow:
        """Add the estimate to a row.

        Args:
            row: With its current step.
            now: Seconds of a monotonic clock.
        """
        first = self._first.get(row.name)
        if first is None or first[:2] != (row.state, row.attempt) or row.step < first[2]:
            first = (row.state, row.attempt, row.step, now)
            if row.step:
                self._first[row.name] = first
        steps = row.step - first[2]
        if steps <= 0 or row.total < row.step:
            return row
        return replace(row, eta_s=(now - first[3]) / steps * (row.total - row.step))
