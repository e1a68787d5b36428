"""The matrix *trained under* times *served under* as CSV, for programs."""

from surogate_bench_orchestrator.report.model.served import Served, ServedCell, ServedRow
from surogate_bench_orchestrator.report.tables.csv.cells import (
    ENDING_COLUMNS,
    difference_cells,
    flag,
    served_cells,
    to_csv_text,
)

MATRIX_COLUMNS = (
    "key", "title", "trained_under", "seed", "served_under", "own", "state", "reason", "seeds", "seeds_scored",
    "accuracy", "stderr", "low", "high", "seed_stddev", "flexible_accuracy", "samples", "empty_answers",
    "largest_empty_share", "many_empty", "eval_seconds",
    "delta_published", "delta_published_stderr", "delta_published_low", "delta_published_high",
    "seeds_compared_published", "p_published", "p_published_adjusted", "p_questions_published",
    "p_questions_published_adjusted",
    "delta_reference", "delta_reference_stderr", "delta_reference_low", "delta_reference_high",
    "seeds_compared_reference", "p_reference", "p_reference_adjusted", "p_questions_reference",
    "p_questions_reference_adjusted",
    *ENDING_COLUMNS,
)  # fmt: skip
"""Columns of matrix.csv: a line for each row and way of serving; numbers unrounded, an absent one empty.

``served_under`` is ``bf16`` for the base as published. ``own`` is ``true`` where it is the recipe of the training.
``…_published`` compares with the same adapters as published, ``…_reference`` with the reference served the same way;
``p_…`` are over seeds and questions, ``p_questions_…`` of one seed, over questions only. Metrics are those
of summary.csv."""


def to_matrix_csv(served: Served) -> str:
    """Return CSV: a line for each row and way of serving, then for each run and way where there are several seeds."""
    return to_csv_text(MATRIX_COLUMNS, (_csv_cells(row, cell) for row in served.all_rows() for cell in row.cells))


def _csv_cells(row: ServedRow, cell: ServedCell) -> dict[str, object]:
    return {
        **served_cells(row, cell),
        "own": flag(cell.served_under is not None and cell.served_under == row.trained_under),
        **difference_cells("published", cell.versus_published),
        **difference_cells("reference", cell.versus_reference),
    }
