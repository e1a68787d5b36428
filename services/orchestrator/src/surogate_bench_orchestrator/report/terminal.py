"""The summary as a table on the terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from surogate_bench_orchestrator.report import formats
from surogate_bench_orchestrator.report.summary import Row, Summary

_FULL_WIDTH = 118
_STATE_STYLE = {"succeeded": "", "failed": "red", "skipped": "yellow", "pending": "dim"}


def render_terminal_table(summary: Summary, *, width: int = 120) -> Table:
    """Make the table for a terminal of ``width`` columns; below 118 it keeps the first columns and the speed."""
    compact = width < _FULL_WIDTH
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption=_caption(summary), caption_justify="left"
    )
    table.add_column("Precision / Config", no_wrap=True, max_width=24 if compact else 20, overflow="ellipsis")
    for name in ("accuracy", "Stderr"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("95 %\ninterval", justify="right", no_wrap=True)
    table.add_column(f"Δ {summary.reference_title or 'reference'}", no_wrap=True, max_width=20, overflow="ellipsis")
    if not compact:
        for name in ("tokens\n/s", "peak\nmemory", "weight\nbytes", "train\ntime"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("engine", min_width=8, max_width=12, overflow="fold")
    for row in summary.rows:
        table.add_row(*_cells(row, summary, compact=compact), style=_STATE_STYLE[row.state])
    return table


def _cells(row: Row, summary: Summary, *, compact: bool) -> list[Text]:
    score, training = row.score, row.training
    cells = [
        formats.title(row, summary),
        formats.fraction(score.accuracy) if score else row.state,
        formats.fraction(score.stderr if score else None),
        formats.interval(score, 3) if score else formats.ABSENT,
        _delta(row, summary),
    ]
    if not compact:
        cells += [
            formats.rate(row),
            formats.size(training.peak_memory_bytes if training else None),
            formats.size(training.weight_bytes if training else None),
            formats.duration(training.train_seconds if training else None),
            (training.engine or formats.ABSENT) if training else formats.ABSENT,
        ]
    # Text, not str: a title or a reason must not be read as Rich markup.
    return [Text(cell) for cell in cells]


def _delta(row: Row, summary: Summary) -> str:
    if row.versus_reference is None:
        return formats.delta(row, summary)
    return f"{formats.delta(row, summary)} {formats.p_text(row.versus_reference.p_adjusted)}".replace(
        " = ", "="
    ).replace(" < ", "<")


def _caption(summary: Summary) -> Text:
    lines = ["* p<0.05  ** p<0.01  *** p<0.001, paired on the same questions, Holm-adjusted"]
    lines += [f"{row.title} {row.state}: {row.reason}" for row in summary.rows if row.state != "succeeded"]
    return Text("\n".join(lines), style="dim")
