"""Two runs on the same questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

from surogate_bench.errors import PermanentError
from surogate_bench.statistics.proportion import normal_quantile, wilson_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """Comparison of run a with run b, question by question. Proportions, not percent."""

    delta: float
    """Accuracy of a minus accuracy of b."""
    stderr: float
    """Standard error of delta from the paired differences (n - 1 form)."""
    low: float
    high: float
    """Confidence interval of delta."""
    p_value: float
    """Exact two-sided McNemar test of delta = 0."""
    only_a: int
    only_b: int
    """Number of questions that only a, or only b, answered correctly."""
    n: int


def compare_paired(a: Sequence[bool], b: Sequence[bool], confidence: float = 0.95) -> PairedComparison:
    """Compare two runs by their answers to the same questions in the same order.

    The interval is Newcombe's square-and-add of two Wilson intervals with the observed correlation (Newcombe 1998,
    Stat. Med. 17:2635, method 10), among those recommended for paired proportions by Fagerland, Lydersen and Laake 2014
    (Stat. Med. 33:2850): it stays within -1..1 and keeps its coverage when few questions differ, where
    delta ± 1.96 stderr collapses to a point.

    Raises:
        PermanentError: the runs did not answer the same number of questions, or fewer than two.
    """
    n = len(a)
    if n != len(b) or n < 2:  # noqa: PLR2004 - a variance needs two
        raise PermanentError(f"paired runs must answer the same questions, two or more; got {n} and {len(b)} answers")
    both = sum(x and y for x, y in zip(a, b, strict=True))
    only_a, only_b = sum(a) - both, sum(b) - both
    delta = (only_a - only_b) / n
    low, high = _newcombe_interval(both, only_a, only_b, n, confidence)
    return PairedComparison(
        delta=delta,
        stderr=sqrt(max(0.0, (only_a + only_b) / n - delta * delta) / (n - 1)),
        low=low,
        high=high,
        p_value=mcnemar_p_value(only_a, only_b),
        only_a=only_a,
        only_b=only_b,
        n=n,
    )


def mcnemar_p_value(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value: either run is right with probability 1/2 where they differ (McNemar 1947)."""
    differing = only_a + only_b
    tail, ways = 0, 1  # ways to choose k of them
    for k in range(min(only_a, only_b) + 1):
        tail += ways
        ways = ways * (differing - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << differing))


def minimal_detectable_difference(
    n: int, disagreement: float, *, significance: float = 0.05, power: float = 0.8
) -> float:
    """Return the smallest difference of accuracy that a paired test on n questions detects with the given power.

    Solves Connor's sample-size formula (Connor 1987, Biometrics 43:207) for the difference.

    Args:
        n: Questions.
        disagreement: Share of questions that exactly one of the two runs answers right, in 0..1.
        significance: Two-sided.
        power: Chance to find a difference of that size.

    Returns:
        A proportion; infinity where not even a difference as large as ``disagreement`` would be found.

    Raises:
        PermanentError: n is below 1 or disagreement outside 0..1.
    """
    if n < 1 or not 0 <= disagreement <= 1:
        raise PermanentError(f"no test has {n} questions of which a share of {disagreement} differ")
    z_significance, z_power = normal_quantile(1 - significance / 2), normal_quantile(power)

    def excess(delta: float) -> float:
        spread = z_power * sqrt(max(0.0, disagreement - delta * delta))
        return delta * sqrt(n) - z_significance * sqrt(disagreement) - spread

    low, high = 0.0, disagreement
    if disagreement == 0 or excess(high) < 0:
        return inf
    while high - low > 1e-12:  # noqa: PLR2004 - far below any accuracy's resolution
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return high


def _newcombe_interval(both: int, only_a: int, only_b: int, n: int, confidence: float) -> tuple[float, float]:
    right_a, right_b = both + only_a, both + only_b
    p_a, p_b = right_a / n, right_b / n
    low_a, high_a = wilson_interval(right_a, n, confidence)
    low_b, high_b = wilson_interval(right_b, n, confidence)
    margins = right_a * (n - right_a) * right_b * (n - right_b)
    cross = float(both * (n - both - only_a - only_b) - only_a * only_b)
    if cross > 0:  # Newcombe's continuity correction: a small positive correlation is not relied on
        cross = max(cross - n / 2, 0.0)
    phi = cross / sqrt(margins) if margins else 0.0
    below = _square_and_add(p_a - low_a, high_b - p_b, phi)
    above = _square_and_add(high_a - p_a, p_b - low_b, phi)
    delta = p_a - p_b
    return max(-1.0, delta - below), min(1.0, delta + above)


def _square_and_add(first: float, second: float, correlation: float) -> float:
    return sqrt(max(0.0, first * first - 2 * correlation * first * second + second * second))
