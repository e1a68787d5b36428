"""Columns of tables whose lines are rows of the report, as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from surogate_bench_orchestrator.report.model.rows import Row, Training
from surogate_bench_orchestrator.report.model.scores import Score
from surogate_bench_orchestrator.report.text import formats


@dataclass(frozen=True, slots=True)
class RowColumn:
    """One column: its header, and the cell of each row."""

    header: str
    cell: Callable[[Row], str]


def header_and_cells(
    columns: Sequence[RowColumn], rows: Sequence[Row]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the header, and the cells of each row; a column without any figure is left out."""
    texts = {column: [column.cell(row) for row in rows] for column in columns}
    kept = [column for column in columns if any(text != formats.ABSENT for text in texts[column])]
    cells = tuple(tuple(texts[column][index] for column in kept) for index in range(len(rows)))
    return tuple(column.header for column in kept), cells


def of_score(cell: Callable[[Score], str]) -> Callable[[Row], str]:
    """Return cells of the rows that have a score; the others have none."""
    return lambda row: cell(row.score) if row.score else formats.ABSENT


def of_training(cell: Callable[[Training], str]) -> Callable[[Row], str]:
    """Return cells of the rows that have a training run; the others have none."""
    return lambda row: cell(row.training) if row.training else formats.ABSENT


QUESTIONS = RowColumn("questions", of_score(lambda score: f"{score.samples:,}"))
CUT_OFF = RowColumn(
    "cut off at max_gen_toks", of_score(lambda score: formats.count_of(score.cut_off_answers, score.cut_off_share))
)
UNFORMATTED = RowColumn(
    "no answer in the format",
    of_score(lambda score: formats.count_of(score.unformatted_answers, score.unformatted_share)),
)
