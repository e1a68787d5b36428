"""The table of merged adapters as text, and as CSV for programs."""

from surogate_bench_orchestrator.report.model.merged import Merged, MergedCell, MergedRow
from surogate_bench_orchestrator.report.model.served import ServedCell
from surogate_bench_orchestrator.report.tables.csv_cells import (
    ENDING_COLUMNS,
    difference_cells,
    served_cells,
    to_csv_text,
)
from surogate_bench_orchestrator.report.tables.matrix import TextTable
from surogate_bench_orchestrator.report.text import formats

MERGED_COLUMNS = (
    "key", "title", "trained_under", "seed", "served_under", "state", "reason", "seeds", "seeds_scored",
    "accuracy", "stderr", "low", "high", "seed_stddev", "flexible_accuracy", "samples", "empty_answers",
    "largest_empty_share", "many_empty", "eval_seconds", "unmerged_accuracy",
    "delta_unmerged", "delta_unmerged_stderr", "delta_unmerged_low", "delta_unmerged_high",
    "seeds_compared_unmerged", "p_unmerged", "p_unmerged_adjusted", "p_questions_unmerged",
    "p_questions_unmerged_adjusted",
    *ENDING_COLUMNS,
)  # fmt: skip
"""Columns of merged.csv: a line for each row and way of serving; numbers unrounded, an absent one empty.

``…_unmerged`` compares with the same adapters beside the base, served the same way; otherwise as in matrix.csv."""


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


def to_merged_csv(merged: Merged) -> str:
    """Return CSV: a line for each row and way of serving, then for each run and way where there are several seeds."""
    return to_csv_text(MERGED_COLUMNS, (_csv_cells(row, cell) for row in merged.all_rows() for cell in row.cells))


def _csv_cells(row: MergedRow, cell: MergedCell) -> dict[str, object]:
    unmerged = cell.unmerged
    return {
        **served_cells(row, cell.merged),
        "unmerged_accuracy": unmerged.score.accuracy if unmerged.score else None,
        **difference_cells("unmerged", cell.versus_unmerged),
    }
