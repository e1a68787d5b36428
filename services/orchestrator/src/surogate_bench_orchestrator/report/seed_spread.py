"""By how much accuracies differ between seeds, where that is known."""

from collections.abc import Sequence

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.formats import listed, seeds
from surogate_bench_orchestrator.report.summary import Row

# Measured by `surogate-bench run configs/sweeps/embedded.yaml --seed 0 --seed 1 --seed 2` on 2 cores of an AMD EPYC.
_EMBEDDED = (
    "three seeds of this experiment had accuracies with a standard deviation of 0.6 points (BF16), 3.4 points (FP4) "
    "and 1.4 points (QFP4)"
)


def seed_spread(sweep: RecipeSweep, rows: Sequence[Row]) -> str:
    """What is known about the spread between seeds, as a clause; empty if nothing is.

    Args:
        sweep: The experiment.
        rows: Recipes over their seeds; those with two or more have a spread of their own.
    """
    measured = [
        f"{100 * row.score.seed_stddev:.1f} points ({row.title}, {seeds(row.seeds)})"
        for row in rows
        if row.score and row.score.seed_stddev is not None
    ]
    if measured:
        return f"accuracies have a standard deviation between seeds of {listed(measured)}"
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
