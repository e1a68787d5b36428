"""The tables of further tasks as text."""

from surogate_bench_orchestrator.report.model.further import FurtherTask
from surogate_bench_orchestrator.report.model.summary import Row, Summary
from surogate_bench_orchestrator.report.tables.row_columns import (
    CUT_OFF,
    QUESTIONS,
    UNFORMATTED,
    RowColumn,
    header_and_cells,
    of_score,
)
from surogate_bench_orchestrator.report.tables.text_table import TextTable
from surogate_bench_orchestrator.report.text import formats

FURTHER_TITLE = "Further tasks"
"""Heading of the tables of further tasks."""


def further_table(summary: Summary, further: FurtherTask) -> TextTable:
    """Return the table over seeds; a column without any figure is left out."""
    shown = summary.model_copy(update={"rows": further.rows})
    header, rows = header_and_cells(_columns(shown, further), further.rows)
    return TextTable(title=further.task, caption=further.evaluated_on, header=header, rows=rows)


def _columns(summary: Summary, further: FurtherTask) -> tuple[RowColumn, ...]:
    """Return all columns; ``summary`` has the rows of the task."""
    second = further.second_metric
    return (
        RowColumn("Precision / Config", lambda row: formats.title(row, summary)),
        RowColumn("accuracy", formats.accuracy),
        RowColumn("Stderr", of_score(lambda score: formats.fraction(score.stderr))),
        RowColumn(
            f"95 % interval over {formats.covered(further.rows)}", lambda row: formats.row_interval(row, summary)
        ),
        RowColumn(f"Δ {summary.reference_title or 'reference'}", lambda row: formats.delta_with_p(row, summary)),
        RowColumn("Δ base", formats.delta_to_base),
        RowColumn(
            second or "second metric",
            of_score(lambda score: formats.fraction(score.flexible_accuracy if second else None)),
        ),
        QUESTIONS,
        RowColumn("empty answers", _empty_answers),
        CUT_OFF,
        UNFORMATTED,
    )


def _empty_answers(row: Row) -> str:
    generates = row.score is not None and row.score.cut_off_answers is not None  # a choice has no end
    return formats.empty_answers(row) if generates else formats.ABSENT


def further_line(further: FurtherTask) -> str:
    """Return all accuracies of a further task in one line, for the terminal."""
    accuracies = ", ".join(f"{row.title} {formats.accuracy(row)}" for row in further.rows)
    return f"{further.task} ({further.metric}): {accuracies}"
