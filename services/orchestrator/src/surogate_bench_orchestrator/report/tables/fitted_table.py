"""A table on the terminal that drops whole columns before a figure in one of them is cut."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP = 2
_LEAST_REMARK = _LEAST_TEXT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of figures or text."""

    header: str
    rank: int = 0
    """The column of the highest rank is dropped first; those of rank 0 always stay."""
    justify: Literal["left", "right"] = "left"
    folds: bool = False
    """Whether its text may be broken into several lines; figures never are."""
    remark: bool = False
    """Whether it is a text that may be cut; where the column is dropped, its texts follow below the table."""


class FittedTable:
    """Rows of :class:`rich.text.Text`, drawn with as many columns as the terminal has room for.

    Args:
        columns: From left to right.
        title: Above the table; empty for none.
        caption: Below it, a line each.
        footnotes: Below the caption, a line each; one that begins with one of ``marks`` is drawn only where the caption
            or a cell that is drawn has the mark.
        marks: Single characters.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        title: str = "",
        caption: Sequence[str] = (),
        footnotes: Sequence[str] = (),
        marks: Collection[str] = (),
    ) -> None:
        self._columns = columns
        self._title = title
        self._caption = caption
        self._footnotes = footnotes
        self._marks = marks
        self._rows: list[tuple[Sequence[Text], str]] = []

    def add_row(self, cells: Sequence[Text], *, style: str = "") -> None:
        """Add a row with one cell for each column."""
        self._rows.append((cells, style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw; called by rich."""
        kept = self._kept(options.max_width)
        if self._title:
            yield Text(self._title, style="bold")
        yield self._table(kept, options.max_width)
        for index, column in enumerate(self._columns):
            if column.remark and index not in kept:
                yield from (
                    Text(f"{cells[0].plain}: {cells[index].plain}") for cells, _ in self._rows if cells[index].plain
                )
        if below := [*self._caption, *self._drawn_footnotes(kept)]:
            yield Text("\n".join(below), style="dim")

    def _drawn_footnotes(self, kept: Sequence[int]) -> Iterator[str]:
        drawn = {*self._caption, *(cells[index].plain for cells, _ in self._rows for index in kept)}
        for note in self._footnotes:
            if note[:1] not in self._marks or any(note[0] in text for text in drawn):
                yield note

    def _kept(self, room: int) -> list[int]:
        kept = list(range(len(self._columns)))
        while True:
            needed = sum(map(self._least, kept)) + _GAP * (len(kept) - 1)
            least_important = max(kept, key=lambda index: (self._columns[index].rank, index))
            if needed <= room or self._columns[least_important].rank == 0:
                return kept
            kept.remove(least_important)

    def _table(self, kept: Sequence[int], room: int) -> Table:
        table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
        spare = room - sum(map(self._least, kept)) - _GAP * (len(kept) - 1)
        for index in kept:
            column, least = self._columns[index], self._least(index)
            width = least + min(max(spare, 0), self._natural(index) - least)
            spare -= width - least
            table.add_column(
                column.header,
                justify=column.justify,
                no_wrap=not column.folds,
                overflow="ellipsis" if column.remark else "fold",
                width=max(width, 1),
            )
        for cells, style in self._rows:
            table.add_row(*(cells[index] for index in kept), style=style)
        return table

    def _natural(self, index: int) -> int:
        """Return the width, in columns of the terminal, at which nothing is broken or cut."""
        return max(map(cell_len, self._lines(index)))

    def _least(self, index: int) -> int:
        """Return the smallest width at which the column is readable."""
        if self._columns[index].remark:
            return min(self._natural(index), _LEAST_REMARK)
        if self._columns[index].folds:
            parts = [part for line in self._lines(index) for part in line.split()]
            return min(max(map(cell_len, parts), default=0), _LEAST_TEXT)
        return self._natural(index)

    def _lines(self, index: int) -> list[str]:
        texts = [self._columns[index].header, *(cells[index].plain for cells, _ in self._rows)]
        return [line for text in texts for line in (text.splitlines() or [""])]
