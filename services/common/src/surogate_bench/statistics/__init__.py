"""Intervals and comparisons of accuracies that were measured on one fixed set of questions. Standard library only.

One run has a right or wrong answer to each question, as a sequence of bool in question order. Two runs of a sweep
answer the same questions, so they are compared question by question, which is far more sensitive than comparing two
intervals
(Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640).
"""

from surogate_bench.statistics.alignment import aligned_outcomes
from surogate_bench.statistics.multiple import holm_adjust
from surogate_bench.statistics.paired import (
    PairedComparison,
    compare_paired,
    mcnemar_p_value,
    minimal_detectable_difference,
)
from surogate_bench.statistics.proportion import binomial_stderr, wilson_interval
from surogate_bench.statistics.seeds import PooledAccuracy, PooledComparison, compare_seeds, pool_seeds

__all__ = [
    "PairedComparison",
    "PooledAccuracy",
    "PooledComparison",
    "aligned_outcomes",
    "binomial_stderr",
    "compare_paired",
    "compare_seeds",
    "holm_adjust",
    "mcnemar_p_value",
    "minimal_detectable_difference",
    "pool_seeds",
    "wilson_interval",
]
