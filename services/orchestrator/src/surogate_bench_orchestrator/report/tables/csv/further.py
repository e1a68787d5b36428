"""The tables of further tasks as CSV, for programs."""

from surogate_bench_orchestrator.report.model.summary import Summary
from surogate_bench_orchestrator.report.tables.csv.cells import to_csv_text
from surogate_bench_orchestrator.report.tables.csv.summary import CSV_COLUMNS, row_cells

TASK_COLUMNS = (*CSV_COLUMNS, "metric", "second_metric")
"""Columns of tasks.csv: those of summary.csv, without training figures; ``accuracy`` is by ``metric``,
``flexible_accuracy`` by ``second_metric``."""


def to_tasks_csv(summary: Summary) -> str:
    """Return CSV: for each further task a line per row, then one per run where there are several seeds."""
    return to_csv_text(
        TASK_COLUMNS,
        (
            row_cells(row) | {"task": further.task, "metric": further.metric, "second_metric": further.second_metric}
            for further in summary.further
            for row in (*further.rows, *further.runs)
        ),
    )
