"""The table of merged adapters as CSV, for programs."""

from surogate_bench_orchestrator.report.model.merged import Merged, MergedCell, MergedRow
from surogate_bench_orchestrator.report.tables.csv.cells import (
    ENDING_COLUMNS,
    difference_cells,
    served_cells,
    to_csv_text,
)

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

``…_unmerged`` compares with the same adapters on the unmerged base, served the same way; otherwise as in matrix.csv."""


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
