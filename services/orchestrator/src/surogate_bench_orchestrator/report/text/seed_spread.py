"""Sentences on how much accuracies differ between seeds, where several were trained."""

from collections.abc import Sequence

from surogate_bench_orchestrator.report.model.summary import Row
from surogate_bench_orchestrator.report.text.formats import listed, seeds


def seed_spread(rows: Sequence[Row]) -> str:
    """Format the standard deviations of accuracy between seeds; empty if no row has several seeds.

    Args:
        rows: Recipes over their seeds; those with two or more have a spread of their own.
    """
    measured = [
        f"{100 * row.score.seed_stddev:.1f} points for {row.title} over {seeds(row.seeds)}"
        for row in rows
        if row.score and row.score.seed_stddev is not None
    ]
    return listed(measured) if measured else ""
