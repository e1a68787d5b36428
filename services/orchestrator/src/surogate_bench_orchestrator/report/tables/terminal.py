"""The summary as a table on the terminal."""

from rich.text import Text

from surogate_bench_orchestrator.report.model.summary import Row, Summary
from surogate_bench_orchestrator.report.tables.fitted_table import Column, FittedTable
from surogate_bench_orchestrator.report.tables.further import further_line
from surogate_bench_orchestrator.report.tables.main_table import MAIN_COLUMNS, ROW_TITLE, Kind, MainColumn
from surogate_bench_orchestrator.report.text import formats

_STATE_STYLE = {"succeeded": "", "failed": "red", "skipped": "yellow", "pending": "dim"}


def render_terminal_table(summary: Summary) -> FittedTable:
    """Make the table: where a terminal is narrow, the last columns are left out first, then interval and Stderr."""
    table = FittedTable(
        (Column(header=ROW_TITLE, folds=True), *(_column(column, summary) for column in MAIN_COLUMNS)),
        title=summary.evaluated_on,
        caption=_caption(summary),
        footnotes=_footnotes(summary),
        marks=formats.MARKS,
    )
    for row in summary.rows:
        table.add_row(_cells(row, summary), style=_STATE_STYLE[row.state])
    return table


def _column(column: MainColumn, summary: Summary) -> Column:
    header = column.header(summary, summary.rows)
    if column.kind is Kind.DIFFERENCE:
        header = f"Δ {formats.short(summary.reference_title or 'reference')}"
    return Column(header=column.terminal_header or header, justify=column.terminal_justify, rank=column.rank)


def _cells(row: Row, summary: Summary) -> list[Text]:
    cells = ((column.terminal_cell or column.cell)(row, summary) for column in MAIN_COLUMNS)
    # Text, not str: a title or a reason must not be read as Rich markup.
    return [Text(formats.title(row, summary)), *map(Text, cells)]


def _caption(summary: Summary) -> list[str]:
    return [
        summary.headline,
        *(split.sentence for split in (summary.served.splits if summary.served else ())),
        *((summary.merged.sentence,) if summary.merged and summary.merged.sentence else ()),
        *map(further_line, summary.further),
    ]


def _footnotes(summary: Summary) -> list[str]:
    of_tasks = {note for further in summary.further for note in further.footnotes if note.startswith(formats.SECTION)}
    return [
        *dict.fromkeys((*summary.footnotes, *of_tasks)),
        *(f"{row.title} {row.state}: {row.reason}" for row in summary.rows if row.state != "succeeded"),
    ]
