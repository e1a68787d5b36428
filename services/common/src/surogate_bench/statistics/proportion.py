"""Standard error and confidence interval of one accuracy."""

from math import sqrt
from statistics import NormalDist

from surogate_bench.errors import PermanentError


def binomial_stderr(successes: int, n: int) -> float:
    """Return the standard error of a proportion, sqrt(p (1 - p) / (n - 1)), as lm-eval's Stderr.

    Raises:
        PermanentError: n is below 2, or successes is not between 0 and n.
    """
    _check_counts(successes, n, at_least=2)
    proportion = successes / n
    return sqrt(proportion * (1 - proportion) / (n - 1))


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion, without continuity correction (Wilson 1927, JASA 22:209).

    Unlike p ± 1.96 stderr it stays within 0..1 and has width at p = 0 and p = 1 (Brown, Cai and DasGupta 2001).

    Raises:
        PermanentError: n is below 1, or successes is not between 0 and n.
    """
    _check_counts(successes, n, at_least=1)
    return score_interval(successes / n, n, normal_quantile(0.5 + confidence / 2))


def score_interval(proportion: float, n: float, critical: float) -> tuple[float, float]:
    """Return Wilson's score interval for an effective number of questions and any critical value.

    Args:
        proportion: In 0..1.
        n: Questions, not necessarily an integer; above 0.
        critical: Half-width in standard errors, such as a quantile of the normal or of Student's t distribution.
    """
    square = critical * critical
    shrink = 1 + square / n
    center = (proportion + square / (2 * n)) / shrink
    half = critical * sqrt(proportion * (1 - proportion) / n + square / (4 * n * n)) / shrink
    low = 0.0 if proportion <= 0 else max(0.0, center - half)
    high = 1.0 if proportion >= 1 else min(1.0, center + half)
    return low, high


def normal_quantile(probability: float) -> float:
    """Return a quantile of the standard normal distribution; the probability is strictly between 0 and 1."""
    return NormalDist().inv_cdf(probability)


def _check_counts(successes: int, n: int, *, at_least: int) -> None:
    if n < at_least or not 0 <= successes <= n:
        raise PermanentError(f"{successes} correct answers of {n} questions: at least {at_least} and no more than all")
