"""The table of merged adapters as text."""

from surogate_bench_orchestrator.report.model.merged import Merged, MergedCell, MergedRow
from surogate_bench_orchestrator.report.model.served import ServedCell
from surogate_bench_orchestrator.report.tables.text_table import TextTable
from surogate_bench_orchestrator.report.text import formats


def merged_table(merged: Merged) -> TextTable:
    """Return the table over seeds."""
    return TextTable(
        title="Merged and unmerged",
        caption=(
            "W + scale * B * A in fp32, rounded once to bf16; under a recipe, the merged weights are quantized as the "
            "recipe does. Differences are to the same adapter unmerged, served the same way, paired by question (and "
            "seed); p values are over seeds and questions, adjusted over the rows of a way of serving (Holm). With one "
            "seed or adapter, the interval covers questions only and nothing is tested."
        ),
        header=(
            "Trained under", "served under", "merged (95 % interval)", "unmerged", "Δ unmerged, points",
            "95 % interval", "paired test",
        ),
        rows=tuple(_cells(merged, row, cell) for row in merged.rows for cell in row.cells),
    )  # fmt: skip


def _cells(merged: Merged, row: MergedRow, cell: MergedCell) -> tuple[str, ...]:
    way, found = merged.title_of(cell.merged.served_under), cell.versus_unmerged
    p = None if found is None else found.p_adjusted
    dagger = "" if found is None or found.of_all_seeds else formats.DAGGER
    return (
        row.title,
        way,
        _accuracy(cell.merged, with_interval=True),
        _accuracy(cell.unmerged),
        formats.ABSENT if found is None else f"{formats.points(found.delta)}{dagger}",
        formats.ABSENT if found is None else formats.interval_of_points(found),
        formats.ABSENT if p is None else formats.p_text(p),
    )


def _accuracy(cell: ServedCell, *, with_interval: bool = False) -> str:
    if cell.score is None:
        return cell.state
    many = formats.SECTION if cell.many_empty else ""
    shown = f"{formats.fraction(cell.score.accuracy)}{many}"
    return f"{shown} ({formats.interval(cell.score)})" if with_interval else shown
