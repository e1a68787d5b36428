"""The matrix *trained under* times *served under* as CSV, for programs."""

import csv
import io

from surogate_bench.specs.evaluation import AS_PUBLISHED
from surogate_bench_orchestrator.report.csv_cells import difference_cells, flag, inert, numbers
from surogate_bench_orchestrator.report.served import Served, ServedCell, ServedRow

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
)  # fmt: skip
"""Columns of matrix.csv: a line for each row and way of serving; numbers unrounded, an absent one empty.

``served_under`` is ``bf16`` for the base as published. ``own`` is ``true`` where it is the recipe of the training.
``…_published`` compares with the same adapters as published, ``…_reference`` with the reference served the same way;
``p_…`` are over seeds and questions, ``p_questions_…`` of one seed, over questions only."""


def to_matrix_csv(served: Served) -> str:
    """Return CSV: a line for each row and way of serving, then for each run and way where there are several seeds."""
    out = io.StringIO()
    writer = csv.DictWriter(out, MATRIX_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in served.all_rows():
        writer.writerows(_csv_cells(row, cell) for cell in row.cells)
    return out.getvalue()


def _csv_cells(row: ServedRow, cell: ServedCell) -> dict[str, object]:
    return {
        "key": row.key,
        "title": inert(row.title),
        "trained_under": row.trained_under,
        "seed": row.seed,
        "served_under": cell.served_under or AS_PUBLISHED,
        "own": flag(cell.served_under is not None and cell.served_under == row.trained_under),
        "state": cell.state,
        "reason": inert(cell.reason),
        "seeds": numbers(cell.seeds),
        "seeds_scored": cell.seeds_scored,
        "many_empty": flag(cell.many_empty),
        **(cell.score.model_dump(exclude={"parallel_evaluations"}) if cell.score else {}),
        **difference_cells("published", cell.versus_published),
        **difference_cells("reference", cell.versus_reference),
    }
