"""The columns of the main table, once for Markdown, page and terminal; each of those draws them in its own way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from surogate_bench_orchestrator.report.model.summary import Row, Summary, Training
from surogate_bench_orchestrator.report.text import formats

ROW_TITLE = "Precision / Config"
"""Header of the names of rows, which stand before the columns here."""


class Kind(Enum):
    """What the cells of a column hold, which decides how the page draws them."""

    ACCURACY = auto()
    NUMBER_OF_SCORE = auto()
    INTERVAL = auto()
    DIFFERENCE = auto()
    NUMBER = auto()
    TEXT = auto()

    @property
    def is_of_score(self) -> bool:
        """Whether a row without a score has none: the page shows its state and the reason there."""
        return self not in {Kind.NUMBER, Kind.TEXT}

    @property
    def is_number(self) -> bool:
        """Whether the page aligns the column as numbers."""
        return self not in {Kind.INTERVAL, Kind.TEXT}


@dataclass(frozen=True, slots=True, kw_only=True)
class MainColumn:
    """One column."""

    header: Callable[[Summary, Sequence[Row]], str]
    """Makes the header from the summary and the rows of the table; a line break is a space in Markdown."""
    cell: Callable[[Row, Summary], str]
    kind: Kind = Kind.NUMBER
    rank: int
    """A narrow terminal drops the columns with the highest rank first; rank 0 is never dropped."""
    terminal_header: str | None = None
    """Where it is another: narrower."""
    terminal_cell: Callable[[Row, Summary], str] | None = None
    terminal_justify: Literal["left", "right"] = "right"


def _fixed(header: str) -> Callable[[Summary, Sequence[Row]], str]:
    return lambda _summary, _rows: header


def _of_training(cell: Callable[[Training], str]) -> Callable[[Row, Summary], str]:
    return lambda row, _: cell(row.training) if row.training else formats.ABSENT


def _narrow_difference(row: Row, summary: Summary) -> str:
    text = formats.delta_with_p(row, summary).replace(" = ", "=").replace(" < ", "<")
    return text.replace("(", "").replace(")", "")


MAIN_COLUMNS = (
    MainColumn(header=_fixed("accuracy"), cell=lambda row, _: formats.accuracy(row), kind=Kind.ACCURACY, rank=0),
    MainColumn(
        header=_fixed("Stderr"),
        cell=lambda row, _: formats.fraction(row.score.stderr if row.score else None),
        kind=Kind.NUMBER_OF_SCORE,
        rank=2,
    ),
    MainColumn(
        header=lambda _, rows: f"95 % interval over\n{formats.covered(rows)}",
        terminal_header="95 %\ninterval",
        cell=formats.row_interval,
        terminal_cell=lambda row, summary: formats.row_interval(row, summary, 3),
        kind=Kind.INTERVAL,
        rank=3,
    ),
    MainColumn(
        header=lambda summary, _: f"Δ {summary.reference_title or 'reference'}",
        cell=formats.delta_with_p,
        terminal_cell=_narrow_difference,
        terminal_justify="left",
        kind=Kind.DIFFERENCE,
        rank=1,
    ),
    MainColumn(header=_fixed("tokens/s"), terminal_header="tokens\n/s", cell=lambda row, _: formats.rate(row), rank=4),
    MainColumn(
        header=_fixed("peak\nmemory"), cell=_of_training(lambda found: formats.size(found.peak_memory_bytes)), rank=5
    ),
    MainColumn(
        header=_fixed("weight bytes\nstored"),
        terminal_header="weights\nstored",
        cell=_of_training(lambda found: formats.size(found.weight_bytes)),
        rank=6,
    ),
    MainColumn(
        header=_fixed("weight bytes\nin training"),
        terminal_header="weights in\ntraining",
        cell=_of_training(lambda found: formats.size(found.training_weight_bytes)),
        rank=7,
    ),
    MainColumn(
        header=_fixed("train\ntime"), cell=_of_training(lambda found: formats.duration(found.train_seconds)), rank=9
    ),
    MainColumn(
        header=_fixed("engine"),
        cell=_of_training(lambda found: found.engine or formats.ABSENT),
        terminal_justify="left",
        kind=Kind.TEXT,
        rank=8,
    ),
)
"""Columns from left to right."""
