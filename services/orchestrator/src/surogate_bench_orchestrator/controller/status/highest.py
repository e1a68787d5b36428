"""What has the highest accuracy so far, as a short text."""

from collections.abc import Sequence
from math import isclose
from statistics import fmean

from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.sweep.rows import ProgressRow

_NAMED = 2
"""How many names of equal accuracy are listed."""


def highest_so_far(plan: Plan, rows: Sequence[ProgressRow]) -> str:
    """Return which recipe or trainer has the highest mean accuracy, over the seeds that all scored ones have.

    Means over different seeds would compare seeds rather than recipes. The base model and imported adapters have no
    seed and are left out.

    Args:
        plan: The sweep.
        rows: A row for each of its runs, in their order.

    Returns:
        For example ``fp8 0.600 (1 seed)``; empty while nothing is scored, or no seed is common to all.
    """
    by_seed: dict[str, dict[int, float]] = {}
    for run, row in zip(plan.runs, rows, strict=True):
        if run.seed is not None and row.accuracy is not None:
            by_seed.setdefault(run.row, {})[run.seed] = row.accuracy
    common = set[int].intersection(*(set(found) for found in by_seed.values())) if by_seed else set()
    if not common:
        return ""
    means = {name: fmean(found[seed] for seed in common) for name, found in by_seed.items()}
    highest = max(means.values())
    names = [name for name, mean in means.items() if isclose(mean, highest)]
    return f"{_listed(names)} {highest:.3f} ({len(common)} {'seed' if len(common) == 1 else 'seeds'})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED else f"{names[0]} and {len(names) - 1} others"
