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
    """Mean, standard error and degrees of freedom, with the components of variance spelled out and cut at zero.

    Degrees of freedom jump where a component begins to be cut, so tables at that very point are passed over.
    """
    s, q = table.shape
    mean = table.mean()
    rows, columns = table.mean(1) - mean, table.mean(0) - mean
    both = ((table - mean - rows[:, None] - columns[None, :]) ** 2).sum() / ((s - 1) * (q - 1))
    of_rows, of_columns = q * rows @ rows / (s - 1), s * columns @ columns / (q - 1)
    assume(min(abs(of_rows - both), abs(of_columns - both)) > 1e-9)
    seeds, questions = max(0.0, (of_rows - both) / q), max(0.0, (of_columns - both) / s)
    variance = seeds / s + questions / q + both / (s * q)
    spread = {
        (True, True): of_rows**2 / (s - 1) + of_columns**2 / (q - 1) + both**2 / ((s - 1) * (q - 1)),
        (True, False): of_rows**2 / (s - 1),
        (False, True): of_columns**2 / (q - 1),
        (False, False): both**2 / ((s - 1) * (q - 1)),
    }[seeds > 0, questions > 0]
    df = (variance * s * q) ** 2 / spread
    return float(mean), float(np.sqrt(variance)), float(df)


@given(st.floats(0.3, 3000), st.floats(0.6, 0.9999))
def test_the_t_quantile_is_scipys(df: float, probability: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-6)


@given(st.floats(0.3, 3000), st.floats(-60, 60))
def test_the_t_test_is_scipys(df: float, t: float) -> None:
    assert two_sided_p_value(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-8, abs=1e-12)


@given(TABLES)
def test_pooling_is_the_crossed_analysis_of_variance(rows: list[list[bool]]) -> None:
    found = pool_seeds(rows)
    mean, stderr, df = crossed(np.array(rows, dtype=float))
    assert (found.accuracy, found.stderr) == pytest.approx((mean, stderr), abs=1e-9)
    if stderr > 1e-9:
        half = stats.t.ppf(0.975, df) * stderr
        assert (found.low, found.high) == pytest.approx((max(0, mean - half), min(1, mean + half)), abs=1e-5)
    assert found.seed_stddev == pytest.approx(np.std([np.mean(row) for row in rows], ddof=1), abs=1e-9)


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
    mean, stderr, df = crossed(np.array(rows, dtype=float) - np.array(other, dtype=float))
    assert (found.delta, found.stderr) == pytest.approx((mean, stderr), abs=1e-9)
    if stderr > 1e-9:
        assert found.p_value == pytest.approx(2 * stats.t.sf(abs(mean) / stderr, df), abs=1e-5)


def test_every_seed_is_compared_with_a_single_row() -> None:
    base = [False] * 60 + [True] * 40
    seeds = [[True] * 50 + [False] * 10 + [True] * 40, [True] * 40 + [False] * 20 + [True] * 40]
    found = compare_seeds(seeds, [base])
    assert found == compare_seeds(seeds, [base, base])
    assert found.delta == pytest.approx(0.45)


@pytest.mark.parametrize(("rows", "p_value"), [([[True, True], [True, True]], 0.0), ([[False, False]] * 2, 1.0)])
def test_differences_without_any_spread_are_certain(rows: list[list[bool]], p_value: float) -> None:
    assert compare_seeds(rows, [[False, False]]).p_value == p_value


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
