"""Cells of CSV files."""

from collections.abc import Sequence

from surogate_bench_orchestrator.report.figures import Comparison

_SPREADSHEET_TRIGGERS = ("=", "+", "-", "@", "\t", "\r")


def inert(text: str) -> str:
    """Keep a spreadsheet from taking a title or a reason for a formula."""
    return f"'{text}" if text.startswith(_SPREADSHEET_TRIGGERS) else text


def flag(value: bool) -> str:
    """Return ``true`` or an empty cell."""
    return "true" if value else ""


def numbers(seeds: Sequence[int]) -> str:
    """Return numbers separated by blanks."""
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
