"""One recipe trained with several seeds: what would new seeds *and* new questions have given?

Seeds and questions are crossed: every seed's adapter answers every question. The variance of the mean over both is
estimated from the two-way analysis of variance without replication (Searle, Casella and McCulloch 1992, "Variance
Components", ch. 4), with Satterthwaite's degrees of freedom (1946, Biometrics Bull. 2:110). Treating the answers of all
seeds as independent would understate it; taking only the spread between seeds would leave out the questions' share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from surogate_bench.errors import PermanentError
from surogate_bench.statistics.paired import compare_paired
from surogate_bench.statistics.proportion import binomial_stderr, wilson_interval
from surogate_bench.statistics.student_t import t_quantile, two_sided_p_value


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledAccuracy:
    """Accuracy of one recipe over its seeds."""

    accuracy: float
    stderr: float
    """Of the mean, for new seeds and new questions."""
    low: float
    high: float
    seed_stddev: float | None
    """Standard deviation of the seeds' accuracies; None with one seed."""
    seeds: int
    n: int
    """Questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledComparison:
    """Recipe a against recipe b over their seeds: the accuracy of a minus that of b."""

    delta: float
    stderr: float
    low: float
    high: float
    p_value: float
    seeds: int
    n: int


@dataclass(frozen=True, slots=True)
class _CrossedMean:
    mean: float
    stderr: float
    df: float


def pool_seeds(outcomes: Sequence[Sequence[bool]], confidence: float = 0.95) -> PooledAccuracy:
    """Pool one recipe's seeds; with one seed this is the binomial standard error and the Wilson interval.

    Args:
        outcomes: One row a seed: right or wrong to each question, in the same order in every row.
        confidence: Of the interval.

    Raises:
        PermanentError: no seeds, fewer than two questions, or rows of different length.
    """
    seeds, n = _shape(outcomes)
    if seeds == 1:
        right = sum(outcomes[0])
        low, high = wilson_interval(right, n, confidence)
        stderr = binomial_stderr(right, n)
        return PooledAccuracy(accuracy=right / n, stderr=stderr, low=low, high=high, seed_stddev=None, seeds=1, n=n)
    pooled = _crossed_mean([[float(right) for right in row] for row in outcomes])
    half = t_quantile(0.5 + confidence / 2, pooled.df) * pooled.stderr
    accuracies = [sum(row) / n for row in outcomes]
    return PooledAccuracy(
        accuracy=pooled.mean,
        stderr=pooled.stderr,
        low=max(0.0, pooled.mean - half),
        high=min(1.0, pooled.mean + half),
        seed_stddev=sqrt(sum((accuracy - pooled.mean) ** 2 for accuracy in accuracies) / (seeds - 1)),
        seeds=seeds,
        n=n,
    )


def compare_seeds(
    a: Sequence[Sequence[bool]], b: Sequence[Sequence[bool]], confidence: float = 0.95
) -> PooledComparison:
    """Compare two recipes seed by seed and question by question; with one seed each this is `compare_paired`.

    Args:
        a: One row a seed, as for `pool_seeds`.
        b: The same seeds in the same order; or one row, which every seed of a is compared with (the base model).
        confidence: Of the interval.

    Raises:
        PermanentError: the rows do not pair up.
    """
    seeds, n = _shape(a)
    rows = b if len(b) == seeds else [*b] * seeds
    if _shape(rows) != (seeds, n):
        raise PermanentError(f"{seeds} seeds on {n} questions cannot be paired with {_shape(b)}")
    if seeds == 1:
        one = compare_paired(a[0], rows[0], confidence)
        return PooledComparison(
            delta=one.delta, stderr=one.stderr, low=one.low, high=one.high, p_value=one.p_value, seeds=1, n=n
        )
    differences = [
        [float(x) - float(y) for x, y in zip(left, right, strict=True)] for left, right in zip(a, rows, strict=True)
    ]
    pooled = _crossed_mean(differences)
    half = t_quantile(0.5 + confidence / 2, pooled.df) * pooled.stderr
    if pooled.stderr:
        p_value = two_sided_p_value(pooled.mean / pooled.stderr, pooled.df)
    else:
        p_value = 1.0 if pooled.mean == 0 else 0.0
    return PooledComparison(
        delta=pooled.mean,
        stderr=pooled.stderr,
        low=max(-1.0, pooled.mean - half),
        high=min(1.0, pooled.mean + half),
        p_value=p_value,
        seeds=seeds,
        n=n,
    )


def _shape(rows: Sequence[Sequence[bool]]) -> tuple[int, int]:
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or min(lengths) < 2:  # noqa: PLR2004 - a variance needs two
        raise PermanentError(f"every seed must answer the same questions, two or more; got {sorted(lengths)} answers")
    return len(rows), lengths.pop()


def _crossed_mean(rows: list[list[float]]) -> _CrossedMean:
    """Grand mean of a (seeds, questions) table, its standard error and degrees of freedom.

    With mean squares S (seeds), Q (questions) and I (interaction), the variance of the mean is (S + Q - I) / (s q).
    Where S or Q is no larger than I, its component of variance is zero and I takes its place.
    """
    seeds, n = len(rows), len(rows[0])
    mean = sum(map(sum, rows)) / (seeds * n)
    by_seed = [sum(row) / n - mean for row in rows]
    by_question = [sum(row[i] for row in rows) / seeds - mean for i in range(n)]
    square_seed = n * sum(effect * effect for effect in by_seed) / (seeds - 1)
    square_question = seeds * sum(effect * effect for effect in by_question) / (n - 1)
    df_both = (seeds - 1) * (n - 1)
    residual = sum(
        (value - mean - by_seed[s] - by_question[q]) ** 2 for s, row in enumerate(rows) for q, value in enumerate(row)
    )
    square_both = residual / df_both
    terms = [
        (square, df) for square, df in ((square_seed, seeds - 1), (square_question, n - 1)) if square > square_both
    ]
    terms += [((1 - len(terms)) * square_both, df_both)]
    total = sum(square for square, _ in terms)
    spread = sum(square * square / df for square, df in terms)
    df = total * total / spread if spread else float(df_both)
    return _CrossedMean(mean, sqrt(total / (seeds * n)), df)
