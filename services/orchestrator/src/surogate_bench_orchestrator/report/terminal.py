"""The summary as a table on the terminal."""

from rich.text import Text

from surogate_bench_orchestrator.report import formats
from surogate_bench_orchestrator.report.fitted_table import Column, FittedTable
from surogate_bench_orchestrator.report.summary import Row, Summary

_STATE_STYLE = {"succeeded": "", "failed": "red", "skipped": "yellow", "pending": "dim"}


def render_terminal_table(summary: Summary) -> FittedTable:
    """Make the table: where a terminal is narrow, the last columns are left out first, then interval and Stderr."""
    table = FittedTable(
        (
            Column(header="Precision / Config", folds=True),
            Column(header="accuracy", justify="right"),
            Column(header="Stderr", justify="right", rank=2),
            Column(header="95 %\ninterval", justify="right", rank=3),
            Column(header=f"Δ {formats.short(summary.reference_title or 'reference')}", rank=1),
            Column(header="tokens\n/s", justify="right", rank=4),
            Column(header="peak\nmemory", justify="right", rank=5),
            Column(header="weights\nstored", justify="right", rank=6),
            Column(header="weights in\ntraining", justify="right", rank=7),
            Column(header="train\ntime", justify="right", rank=9),
            Column(header="engine", rank=8),
        ),
        title=summary.evaluated_on,
        caption=_caption(summary),
    )
    for row in summary.rows:
        table.add_row(_cells(row, summary), style=_STATE_STYLE[row.state])
    return table


def _cells(row: Row, summary: Summary) -> list[Text]:
    score, training = row.score, row.training
    cells = [
        formats.title(row, summary),
        formats.accuracy(row),
        formats.fraction(score.stderr if score else None),
        formats.row_interval(row, summary, 3),
        formats.delta_with_p(row, summary).replace(" = ", "=").replace(" < ", "<").replace("(", "").replace(")", ""),
        formats.rate(row),
        formats.size(training.peak_memory_bytes if training else None),
        formats.size(training.weight_bytes if training else None),
        formats.size(training.training_weight_bytes if training else None),
        formats.duration(training.train_seconds if training else None),
        (training.engine or formats.ABSENT) if training else formats.ABSENT,
    ]
    # Text, not str: a title or a reason must not be read as Rich markup.
    return [Text(cell) for cell in cells]


def _caption(summary: Summary) -> list[str]:
    return [
        summary.headline,
        *(split.sentence for split in (summary.served.splits if summary.served else ())),
        *((summary.merged.sentence,) if summary.merged and summary.merged.sentence else ()),
        *summary.footnotes,
        *(f"{row.title} {row.state}: {row.reason}" for row in summary.rows if row.state != "succeeded"),
    ]
