"""Uncertainty of a recipe that was trained with several seeds, with regard to new seeds *and* new questions.

Seeds and questions are crossed: every seed's adapter answers every question. The variance of the mean over both has two
parts, each estimated from the two-way analysis of variance without replication (Searle, Casella and McCulloch 1992,
"Variance Components", ch. 4): the spread between seeds, known with (seeds - 1) degrees of freedom, and what questions
add to it, known with (questions - 1). Treating the answers of all seeds as independent would understate the variance;
taking only the spread between seeds would leave out the questions' share.

The spread between few seeds is estimated poorly: two give one degree of freedom. The critical value is therefore
Cochran and Cox's (1957, "Experimental Designs", 4.14): the mean of the two t quantiles, weighted by the two parts. It
is conservative for any ratio of the parts, where Satterthwaite's approximation, which drops a seed variance that
happens to come out small, calls up to 14 % of equal recipes different at two seeds (`tests/perf/seed_statistics.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

from surogate_bench.errors import PermanentError
from surogate_bench.statistics.paired import compare_paired
from surogate_bench.statistics.proportion import binomial_stderr, score_interval, wilson_interval
from surogate_bench.statistics.student_t import solve_decreasing, t_quantile, two_sided_p_value

_SMALLEST_LEVEL = 1e-300
"""Stands for p values that are 0 in floating point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledAccuracy:
    """Accuracy of one recipe over its seeds."""

    accuracy: float
    stderr: float
    """Standard error of the mean, for new seeds and new questions."""
    low: float
    high: float
    seed_stddev: float | None
    """Standard deviation of the seeds' accuracies; None with one seed."""
    seeds: int
    n: int
    """Questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledComparison:
    """Comparison of recipe a with recipe b over their seeds: the accuracy of a minus that of b."""

    delta: float
    stderr: float
    low: float
    high: float
    p_value: float
    seeds: int
    n: int


@dataclass(frozen=True, slots=True)
class _CrossedMean:
    """Grand mean of a (seeds, questions) table and the two parts of its variance."""

    mean: float
    seed_variance: float
    """Squared spread of the seeds' means, over the number of seeds."""
    question_variance: float
    """Variance that questions add to the spread between seeds; not below 0."""
    seeds: int
    n: int

    @property
    def stderr(self) -> float:
        return sqrt(self.seed_variance + self.question_variance)

    def critical_value(self, significance: float) -> float:
        """Return the standard errors beyond which a two-sided test at that level rejects (Cochran and Cox)."""
        total = self.seed_variance + self.question_variance
        share = self.seed_variance / total if total else 0.0
        by_seeds = share * t_quantile(significance, self.seeds - 1) if share else 0.0
        return by_seeds + (1 - share) * t_quantile(significance, self.n - 1)

    def p_value(self) -> float:
        """Return the two-sided p-value: the significance level whose critical value is the mean in standard errors."""
        t = abs(self.mean) / self.stderr if self.stderr else 0.0
        # The critical value is between those of the two distributions, and so is the p value.
        low, high = sorted((two_sided_p_value(t, self.seeds - 1), two_sided_p_value(t, self.n - 1)))
        if high >= 1:
            return 1.0
        # By logarithms: few degrees of freedom make critical values of small levels too large to interpolate.
        exponent = solve_decreasing(
            lambda exponent: log(t / self.critical_value(exp(-exponent))), -log(high), -log(max(low, _SMALLEST_LEVEL))
        )
        return exp(-exponent)


def pool_seeds(outcomes: Sequence[Sequence[bool]], confidence: float = 0.95) -> PooledAccuracy:
    """Pool one recipe's seeds; with one seed this is the binomial standard error and the Wilson interval.

    With several seeds the interval is Wilson's with as many questions as would give the standard error found (Kott and
    Liu 2009, "One-sided coverage intervals for a proportion estimated from a stratified simple random sample", Int.
    Stat. Rev. 77:251), so it stays within 0..1 and keeps its width where every answer is right or none is.

    Args:
        outcomes: One row a seed: right or wrong to each question, in the same order in every row.
        confidence: Confidence level of the interval, between 0 and 1.

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
    low, high = score_interval(pooled.mean, _effective_questions(pooled), pooled.critical_value(1 - confidence))
    accuracies = [sum(row) / n for row in outcomes]
    return PooledAccuracy(
        accuracy=pooled.mean,
        stderr=pooled.stderr,
        low=low,
        high=high,
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
        confidence: Confidence level of the interval, between 0 and 1.

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
    pooled = _crossed_mean(differences, least_variance=2 / (n + 2) ** 2)
    half = pooled.critical_value(1 - confidence) * pooled.stderr
    return PooledComparison(
        delta=pooled.mean,
        stderr=pooled.stderr,
        low=max(-1.0, pooled.mean - half),
        high=min(1.0, pooled.mean + half),
        p_value=pooled.p_value(),
        seeds=seeds,
        n=n,
    )


def _shape(rows: Sequence[Sequence[bool]]) -> tuple[int, int]:
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or min(lengths) < 2:  # noqa: PLR2004 - a variance needs two
        raise PermanentError(f"every seed must answer the same questions, two or more; got {sorted(lengths)} answers")
    return len(rows), lengths.pop()


def _crossed_mean(rows: Sequence[Sequence[float]], *, least_variance: float = 0.0) -> _CrossedMean:
    """Analyze a (seeds, questions) table.

    With mean squares S (seeds), Q (questions) and I (interaction), the variance of the mean is (S + Q - I) / (s q),
    where the component of the questions, Q - I, is not below zero.

    Args:
        rows: One row a seed.
        least_variance: Minimum variance of the mean, by questions, and by one seed; taken where the table shows less.
            Differences that are all alike have no spread, yet no sample shows that the next question or seed will agree
            too. Bonett and Price (2012, J. Educ. Behav. Stat. 37:479) add one answer that differs in either direction:
            2 / (n + 2)^2.
    """
    seeds, n = len(rows), len(rows[0])
    mean = sum(map(sum, rows)) / (seeds * n)
    by_seed = [sum(row) / n - mean for row in rows]
    by_question = [sum(row[i] for row in rows) / seeds - mean for i in range(n)]
    square_seed = n * sum(effect * effect for effect in by_seed) / (seeds - 1)
    square_question = seeds * sum(effect * effect for effect in by_question) / (n - 1)
    residual = sum(
        (value - mean - by_seed[s] - by_question[q]) ** 2 for s, row in enumerate(rows) for q, value in enumerate(row)
    )
    square_both = residual / ((seeds - 1) * (n - 1))
    question_variance = max(0.0, square_question - square_both) / (seeds * n)
    return _CrossedMean(
        mean=mean,
        seed_variance=max(square_seed / n, least_variance) / seeds,
        question_variance=max(question_variance, least_variance),
        seeds=seeds,
        n=n,
    )


def _effective_questions(pooled: _CrossedMean) -> float:
    """Return how many independent questions would give this standard error: at most all answers of all seeds.

    Where all answers are right, or none, their spread is uninformative and the questions count once, as for one seed.
    """
    spread = pooled.mean * (1 - pooled.mean)
    if spread <= 0:
        return float(pooled.n)
    answers = float(pooled.seeds * pooled.n)
    return min(answers, spread / pooled.stderr**2) if pooled.stderr else answers
