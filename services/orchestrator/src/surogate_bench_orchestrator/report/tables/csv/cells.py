"""Cells of CSV files."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from surogate_bench.specs.evaluation import AS_PUBLISHED
from surogate_bench_orchestrator.report.model.merged import MergedRow
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import ServedCell, ServedRow

ENDING_COLUMNS = (
    "empty_share", "cut_off_answers", "cut_off_share", "unformatted_answers", "unformatted_share", "unfinished_share",
    "tokens_per_answer",
)  # fmt: skip
"""Columns of every file with scores: how answers ended."""
_SPREADSHEET_TRIGGERS = ("=", "+", "-", "@", "\t", "\r")


def to_csv_text(columns: Sequence[str], lines: Iterable[Mapping[str, object]]) -> str:
    """Return a header and lines; a column that a line lacks is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def inert(text: str) -> str:
    """Keep a spreadsheet from taking a title or a reason for a formula."""
    return f"'{text}" if text.startswith(_SPREADSHEET_TRIGGERS) else text


def flag(value: bool) -> str:
    """Return ``true`` or an empty cell."""
    return "true" if value else ""


def numbers(seeds: Sequence[int]) -> str:
    """Return numbers separated by spaces."""
    return " ".join(map(str, seeds))


def difference_cells(name: str, found: Comparison | None) -> dict[str, object]:
    """Return the cells of a paired difference; ``name`` is what it is to, as in the names of the columns."""
    if found is None:
        return {}
    return {
        f"delta_{name}": found.delta,
        f"delta_{name}_stderr": found.stderr,
        f"delta_{name}_low": found.low,
        f"delta_{name}_high": found.high,
        f"seeds_compared_{name}": numbers(found.seeds),
        f"p_{name}": found.p_value,
        f"p_{name}_adjusted": found.p_adjusted,
        f"p_questions_{name}": found.p_questions,
        f"p_questions_{name}_adjusted": found.p_questions_adjusted,
    }


def served_cells(row: ServedRow | MergedRow, cell: ServedCell) -> dict[str, object]:
    """Return the cells of a row's score on one way of serving."""
    return {
        "key": row.key,
        "title": inert(row.title),
        "trained_under": row.trained_under,
        "seed": row.seed,
        "served_under": cell.served_under or AS_PUBLISHED,
        "state": cell.state,
        "reason": inert(cell.reason),
        "seeds": numbers(cell.seeds),
        "seeds_scored": cell.seeds_scored,
        "many_empty": flag(cell.many_empty),
        **(cell.score.model_dump(exclude={"parallel_evaluations"}) if cell.score else {}),
    }
