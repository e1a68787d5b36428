"""The tables of further tasks as text."""

from surogate_bench_orchestrator.report.model.summary import FurtherTask, Row, Summary
from surogate_bench_orchestrator.report.tables.matrix import TextTable
from surogate_bench_orchestrator.report.text import formats

FURTHER_TITLE = "Further tasks"
"""Heading of the tables of further tasks."""


def further_table(summary: Summary, further: FurtherTask) -> TextTable:
    """Return the table over seeds; a column without any figure is left out."""
    shown = summary.model_copy(update={"rows": further.rows})
    header = (
        "Precision / Config", "accuracy", "Stderr", f"95 % interval over {formats.covered(further.rows)}",
        f"Δ {summary.reference_title or 'reference'}", "Δ base", further.second_metric or "second metric", "questions",
        "empty answers", "cut off at max_gen_toks", "no answer in the format",
    )  # fmt: skip
    rows = [_cells(row, shown, further) for row in further.rows]
    kept = [index for index in range(len(header)) if any(cells[index] != formats.ABSENT for cells in rows)]
    return TextTable(
        title=further.task,
        caption=further.evaluated_on,
        header=tuple(header[index] for index in kept),
        rows=tuple(tuple(cells[index] for index in kept) for cells in rows),
    )


def _cells(row: Row, summary: Summary, further: FurtherTask) -> tuple[str, ...]:
    score = row.score
    generates = score is not None and score.cut_off_answers is not None  # a choice has no end
    second = score.flexible_accuracy if score and further.second_metric else None
    return (
        formats.title(row, summary),
        formats.accuracy(row),
        formats.fraction(score.stderr if score else None),
        formats.row_interval(row, summary),
        formats.delta_with_p(row, summary),
        formats.delta_to_base(row),
        formats.fraction(second),
        f"{score.samples:,}" if score else formats.ABSENT,
        formats.empty_answers(row) if generates else formats.ABSENT,
        formats.count_of(score.cut_off_answers, score.cut_off_share) if score else formats.ABSENT,
        formats.count_of(score.unformatted_answers, score.unformatted_share) if score else formats.ABSENT,
    )


def further_line(further: FurtherTask) -> str:
    """Return all accuracies of a further task in one line, for the terminal."""
    accuracies = ", ".join(f"{row.title} {formats.accuracy(row)}" for row in further.rows)
    return f"{further.task} ({further.metric}): {accuracies}"
