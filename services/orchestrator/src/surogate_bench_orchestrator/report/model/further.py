"""Results of a task other than the primary one."""

from surogate_bench_orchestrator.report.model.rows import Row, ScoredOn
from surogate_bench_orchestrator.report.model.scores import Part


class FurtherTask(Part):
    """Results of a task other than the primary one, on the base as published; rows have no training figures."""

    task: str
    metric: str
    """What ``accuracy`` of its scores is."""
    second_metric: str | None
    """What ``flexible_accuracy`` of its scores is; None where the task has one metric."""
    evaluated_on: str
    scored: tuple[ScoredOn, ...]
    rows: tuple[Row, ...]
    """The rows of the summary, compared within this task."""
    runs: tuple[Row, ...]
    footnotes: tuple[str, ...]
    notes: tuple[str, ...]
