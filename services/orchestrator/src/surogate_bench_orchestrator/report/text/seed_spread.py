"""By how much accuracies differ between seeds, where that is known."""

from collections.abc import Sequence

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.model.summary import Row
from surogate_bench_orchestrator.report.text.formats import listed, seeds

# Measured by `surogate-bench run configs/sweeps/embedded.yaml --seed 0 --seed 1 --seed 2` on 2 cores of an AMD EPYC.
_EMBEDDED = "0.6 points for BF16, 3.4 for FP4 and 1.4 for QFP4 over three seeds of this experiment"


def seed_spread(sweep: RecipeSweep, rows: Sequence[Row]) -> str:
    """Format the standard deviations of accuracy between seeds; empty if none is known.

    Args:
        sweep: The experiment.
        rows: Recipes over their seeds; those with two or more have a spread of their own.
    """
    measured = [
        f"{100 * row.score.seed_stddev:.1f} points for {row.title} over {seeds(row.seeds)}"
        for row in rows
        if row.score and row.score.seed_stddev is not None
    ]
    if measured:
        return listed(measured)
    return _documented(sweep)


def _documented(sweep: RecipeSweep) -> str:
    embedded = (
        sweep.model.builtin == "tiny-qwen3-en"
        and sweep.data.builtin == "word-problems-ro"
        and (sweep.data.train_size, sweep.data.test_size) == (1600, 500)
        and (sweep.training.max_steps, sweep.training.learning_rate) == (300, 4.0e-3)
        and sweep.evaluation.limit is None
    )
    return _EMBEDDED if embedded else ""
