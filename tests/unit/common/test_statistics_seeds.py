"""Several seeds: the crossed analysis of variance against direct computation, simulation and special cases."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from surogate_bench.errors import PermanentError
from surogate_bench.statistics import binomial_stderr, compare_paired, compare_seeds, pool_seeds, wilson_interval
from surogate_bench.statistics.student_t import t_quantile, two_sided_p_value

TABLES = st.integers(2, 5).flatmap(
    lambda seeds: st.integers(2, 40).flatmap(
        lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=seeds, max_size=seeds)
    )
)


def crossed(table: np.ndarray) -> tuple[float, float, float]:
    """Mean of a table and the two parts of its variance, with the components of variance spelled out."""
    s, q = table.shape
    mean = table.mean()
    rows, columns = table.mean(1) - mean, table.mean(0) - mean
    both = ((table - mean - rows[:, None] - columns[None, :]) ** 2).sum() / ((s - 1) * (q - 1))
    of_questions = max(0.0, (s * columns @ columns / (q - 1) - both) / s)
    return float(mean), float(table.mean(1).var(ddof=1) / s), float(of_questions / q)


def critical(seed_variance: float, question_variance: float, shape: tuple[int, int], level: float) -> float:
    """Cochran and Cox's critical value, from scipy's t quantiles."""
    by_seeds, by_questions = (stats.t.isf(level / 2, size - 1) for size in shape)
    total = seed_variance + question_variance
    return (
        float((seed_variance * by_seeds + question_variance * by_questions) / total) if total else float(by_questions)
    )


@given(st.floats(0.9, 3000), st.floats(-30, -0.1))
def test_the_t_quantile_is_scipys(df: float, exponent: float) -> None:
    level = 10**exponent
    assert t_quantile(level, df) == pytest.approx(stats.t.isf(level / 2, df), rel=1e-6)


@given(st.floats(0.3, 3000), st.floats(-60, 60))
def test_the_t_test_is_scipys(df: float, t: float) -> None:
    assert two_sided_p_value(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-8, abs=1e-12)


@given(TABLES)
def test_pooling_is_the_crossed_analysis_of_variance(rows: list[list[bool]]) -> None:
    found = pool_seeds(rows)
    table = np.array(rows, dtype=float)
    mean, by_seeds, by_questions = crossed(table)
    stderr = (by_seeds + by_questions) ** 0.5
    assert (found.accuracy, found.stderr) == pytest.approx((mean, stderr), abs=1e-9)
    assert found.seed_stddev == pytest.approx(np.std([np.mean(row) for row in rows], ddof=1), abs=1e-9)
    if 0 < mean < 1 and stderr > 1e-6:  # both ends are where the mean lies that many standard errors away
        t, n = critical(by_seeds, by_questions, table.shape, 0.05), min(table.size, mean * (1 - mean) / stderr**2)
        for end in (found.low, found.high):
            assert abs(mean - end) == pytest.approx(t * (end * (1 - end) / n) ** 0.5, rel=1e-6, abs=1e-9)


def test_one_seed_has_the_error_bars_of_one_run() -> None:
    row = [True] * 350 + [False] * 150
    found = pool_seeds([row])
    assert (found.accuracy, found.stderr) == (0.7, binomial_stderr(350, 500))
    assert (found.low, found.high) == wilson_interval(350, 500)
    assert (found.seed_stddev, found.seeds, found.n) == (None, 1, 500)


def test_seeds_that_answer_alike_add_no_certainty_about_the_questions() -> None:
    row = [True] * 350 + [False] * 150
    assert pool_seeds([row] * 4).stderr == pytest.approx(binomial_stderr(350, 500))


def test_seeds_that_differ_widen_the_error_bar_beyond_that_of_the_questions() -> None:
    low, high = [True] * 250 + [False] * 250, [True] * 400 + [False] * 100
    assert pool_seeds([low, high]).stderr > 3 * binomial_stderr(325, 500)


def test_the_interval_covers_the_truth_when_seeds_and_questions_both_vary() -> None:
    """300 experiments with 4 seeds and 200 questions; a right answer's chance is 0.6 + seed + question effects."""
    rng = np.random.default_rng(7)
    covered = independent = 0
    for _ in range(300):
        chance = 0.6 + rng.normal(0, 0.05, (4, 1)) + rng.uniform(-0.3, 0.3, (1, 200))
        rows = rng.random((4, 200)) < chance
        found = pool_seeds(rows.tolist())
        covered += found.low <= 0.6 <= found.high
        half = 1.96 * np.sqrt(rows.mean() * (1 - rows.mean()) / rows.size)
        independent += abs(rows.mean() - 0.6) <= half
    assert covered / 300 > 0.92
    assert independent / 300 < 0.8  # what pretending that all answers are independent would give


def test_with_one_seed_each_a_comparison_is_the_paired_one() -> None:
    a, b = [True, True, False, True] * 50, [True, False, False, True] * 50
    one, paired = compare_seeds([a], [b]), compare_paired(a, b)
    assert (one.delta, one.stderr, one.low, one.high, one.p_value) == (
        paired.delta,
        paired.stderr,
        paired.low,
        paired.high,
        paired.p_value,
    )


@given(TABLES)
def test_comparing_seeds_is_the_crossed_analysis_of_their_differences(rows: list[list[bool]]) -> None:
    other = [row[1:] + row[:1] for row in rows]
    found = compare_seeds(rows, other)
    table = np.array(rows, dtype=float) - np.array(other, dtype=float)
    mean, by_seeds, by_questions = crossed(table)
    least = 2 / (found.n + 2) ** 2
    by_seeds, by_questions = max(by_seeds, least / found.seeds), max(by_questions, least)
    stderr = (by_seeds + by_questions) ** 0.5
    assert (found.delta, found.stderr) == pytest.approx((mean, stderr), abs=1e-9)
    if abs(mean) > 1e-9:
        expected = abs(mean) / stderr
        assert critical(by_seeds, by_questions, table.shape, found.p_value) == pytest.approx(expected, rel=1e-6)
    half = critical(by_seeds, by_questions, table.shape, 0.05) * stderr
    assert (found.low, found.high) == pytest.approx((max(-1, mean - half), min(1, mean + half)), abs=1e-6)


@given(TABLES)
def test_a_difference_is_significant_where_its_interval_leaves_out_zero(rows: list[list[bool]]) -> None:
    found = compare_seeds(rows, [row[1:] + row[:1] for row in rows])
    distance = min(abs(found.low), abs(found.high))
    assume(distance > 1e-9)
    assert (found.p_value < 0.05) == (not found.low < 0 < found.high)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("worse", [10, 89, 250, 450])
def test_the_p_value_of_a_large_difference_is_the_level_of_its_critical_value(seeds: int, worse: int) -> None:
    """Far outside of what questions explain, where 1 - level / 2 is 1 in floating point."""
    a = [[index < 500 - worse - (seed % 2) for index in range(500)] for seed in range(seeds)]
    found = compare_seeds(a, [[True] * 500] * seeds)
    mean, by_seeds, by_questions = crossed(np.array(a, dtype=float) - 1)
    least = 2 / (500 + 2) ** 2
    parts = (max(by_seeds, least / seeds), max(by_questions, least))
    assert critical(*parts, (seeds, 500), found.p_value) == pytest.approx(abs(mean) / found.stderr, rel=1e-6)
    assert (found.p_value < 0.05) == (found.high < 0)


def test_every_seed_is_compared_with_a_single_row() -> None:
    base = [False] * 60 + [True] * 40
    seeds = [[True] * 50 + [False] * 10 + [True] * 40, [True] * 40 + [False] * 20 + [True] * 40]
    found = compare_seeds(seeds, [base])
    assert found == compare_seeds(seeds, [base, base])
    assert found.delta == pytest.approx(0.45)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_answers_that_are_all_right_leave_room_for_one_that_is_not(seeds: int) -> None:
    found = pool_seeds([[True] * 500] * seeds)
    assert found.high == 1.0
    low, _ = wilson_interval(500, 500)
    assert found.low == pytest.approx(low, abs=2e-4)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_differences_that_are_all_alike_do_not_make_certainty(seeds: int) -> None:
    alike = compare_seeds([[True] * 500] * seeds, [[True] * 500])
    assert (alike.delta, alike.p_value) == (0.0, 1.0)
    assert alike.low < -0.004
    assert alike.high > 0.004
    apart = compare_seeds([[True] * 500] * seeds, [[False] * 500])
    assert apart.delta == apart.high == 1.0
    assert apart.low < 0.996
    assert 0 < apart.p_value < 0.01


@pytest.mark.parametrize(("seeds", "seed_effect"), [(2, 0.0), (2, 0.06), (3, 0.06), (5, 0.06)])
def test_equal_recipes_are_rarely_called_different(seeds: int, seed_effect: float) -> None:
    """300 comparisons of two recipes of equal accuracy, on 60 questions of different difficulty."""
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(300):
        difficulty = rng.uniform(-0.3, 0.3, (1, 60))
        a, b = (rng.random((seeds, 60)) < 0.6 + difficulty + rng.normal(0, seed_effect, (seeds, 1)) for _ in range(2))
        alarms += compare_seeds(a.tolist(), b.tolist()).p_value < 0.05
    assert alarms / 300 < 0.075  # two standard errors of 300 comparisons above 5 %


@pytest.mark.parametrize("rows", [[], [[True]], [[True, False], [True]]])
def test_tables_that_are_not_rectangular_are_refused(rows: list[list[bool]]) -> None:
    with pytest.raises(PermanentError, match="every seed must answer the same questions"):
        pool_seeds(rows)


def test_seeds_that_do_not_pair_are_refused() -> None:
    row = [True, False, True]
    with pytest.raises(PermanentError, match="cannot be paired"):
        compare_seeds([row, row, row], [row, row])
    with pytest.raises(PermanentError, match="cannot be paired"):
        compare_seeds([row], [[True, False]])
