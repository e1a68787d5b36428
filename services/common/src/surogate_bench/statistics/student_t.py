"""Student's t distribution with any positive number of degrees of freedom, integer or not."""

from collections.abc import Callable
from math import exp, inf, lgamma, log

_TINY = 1e-300
_CONVERGED = 1e-15
_CLOSE = 1e-13
_MAX_TERMS = 10_000
_MAX_STEPS = 200


def two_sided_p_value(t: float, df: float) -> float:
    """Return the probability of a value at least as far from 0 as t (Abramowitz and Stegun 26.5.27)."""
    return _regularized_beta(df / (df + t * t), t * t / (df + t * t), df / 2, 0.5)


def t_quantile(level: float, df: float) -> float:
    """Return the value that Student's t exceeds in absolute value with a probability of ``level``, above 0 and below 1.

    The level is that of both tails: the probability of what lies below, 1 - level / 2, rounds to 1 where it is small.
    """
    high = 1.0
    while two_sided_p_value(high, df) > level:
        high *= 2
    return solve_decreasing(
        # The logarithm, because the probabilities at the two ends may differ by more than floating point resolves.
        lambda t: log(max(two_sided_p_value(t, df), _TINY) / level),
        0.0 if high <= 1 else high / 2,
        high,
    )


def solve_decreasing(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the zero of a continuous decreasing function in low..high; an end of the range if it is outside.

    Regula falsi in the Illinois form (Dowell and Jarratt 1971, BIT 11:168): a bracket, as in bisection, that shrinks
    much faster, since an end that stays twice counts half.
    """
    at_low, at_high = function(low), function(high)
    if at_low <= 0 or at_high >= 0:
        return low if at_low <= 0 else high
    side = 0
    for _ in range(_MAX_STEPS):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        if not low < middle < high:  # rounding: the bracket cannot shrink further
            break
        at_middle = function(middle)
        if at_middle > 0:
            low, at_low = middle, at_middle
            at_high, side = (at_high / 2 if side > 0 else at_high), 1
        else:
            high, at_high = middle, at_middle
            at_low, side = (at_low / 2 if side < 0 else at_low), -1
        if at_middle == 0 or high - low <= _CLOSE * high:
            return middle
    return low if at_low < -at_high else high


def _regularized_beta(x: float, rest: float, a: float, b: float) -> float:
    """Return I_x(a, b). ``rest`` is 1 - x, passed separately to keep precision where x is close to 1.

    The continued fraction converges fast left of the mean, so it is mirrored where x is right of it.
    """
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _regularized_beta(rest, x, b, a)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(rest))
    return front / (a * _beta_fraction(x, a, b))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction 1 + d1/(1 + d2/(1 + ...)) of DLMF 8.17.22 by the modified Lentz method."""
    value, c, d = 1.0, 1.0, 0.0
    change = inf
    for term in range(1, _MAX_TERMS):
        m = term // 2
        if term % 2:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (_nonzero(1 + numerator * d))
        c = _nonzero(1 + numerator / c)
        change = c * d
        value *= change
        if abs(change - 1) < _CONVERGED:
            return value
    raise ArithmeticError(f"the incomplete beta function of {x}, {a}, {b} did not converge")


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
