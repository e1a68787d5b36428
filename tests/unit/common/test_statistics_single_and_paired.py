"""Error bars and paired comparisons, against scipy, published figures and exhaustive enumeration."""

from itertools import product
from math import comb, inf, isclose, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from surogate_bench.errors import PermanentError
from surogate_bench.results import SampleLine
from surogate_bench.statistics import (
    PairedComparison,
    aligned_outcomes,
    binomial_stderr,
    compare_paired,
    holm_adjust,
    mcnemar_p_value,
    minimal_detectable_difference,
    wilson_interval,
)

COUNTS = st.integers(2, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=200)


def table(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


@given(COUNTS)
def test_the_standard_error_is_that_of_a_mean_of_zeros_and_ones(counts: tuple[int, int]) -> None:
    right, n = counts
    outcomes = [1.0] * right + [0.0] * (n - right)
    assert isclose(binomial_stderr(right, n), np.std(outcomes, ddof=1) / sqrt(n), rel_tol=1e-9, abs_tol=1e-12)


@given(COUNTS, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_the_wilson_interval_is_scipys(counts: tuple[int, int], confidence: float) -> None:
    right, n = counts
    expected = stats.binomtest(right, n).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson_interval(right, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(COUNTS)
def test_the_wilson_interval_is_the_set_of_proportions_that_a_score_test_accepts(counts: tuple[int, int]) -> None:
    right, n = counts
    z = stats.norm.ppf(0.975)
    for edge in wilson_interval(right, n):
        if 0 < edge < 1:
            assert abs(right / n - edge) == pytest.approx(z * sqrt(edge * (1 - edge) / n), abs=1e-9)


@pytest.mark.parametrize(("right", "n"), [(-1, 5), (6, 5), (0, 0), (1, 1)])
def test_counts_that_cannot_be_are_refused(right: int, n: int) -> None:
    with pytest.raises(PermanentError, match=f"{right} correct answers of {n}"):
        binomial_stderr(right, n)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe 1998, Stat. Med. 17:2635, method 10
        ((14, 5, 0, 22), 0.0115, 0.2265),  # Altman et al. 2000, "Statistics with Confidence", ch. 6
        ((1, 1, 7, 12), -0.5069, -0.0256),  # Fagerland et al. 2014, Stat. Med. 33:2850, airway responsiveness
    ],
)
def test_the_paired_interval_gives_published_figures(cells: tuple[int, int, int, int], low: float, high: float) -> None:
    found = compare_paired(*table(*cells))
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


@given(PAIRS)
def test_a_comparison_agrees_with_the_paired_differences(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    found = compare_paired(a, b)
    differences = np.array(a, dtype=float) - np.array(b, dtype=float)
    assert found.delta == pytest.approx(differences.mean(), abs=1e-12)
    assert found.stderr == pytest.approx(stats.sem(differences), abs=1e-9)
    assert (found.only_a, found.only_b, found.n) == ((differences > 0).sum(), (differences < 0).sum(), len(pairs))
    assert -1 <= found.low <= found.delta <= found.high <= 1


@given(PAIRS)
def test_reversing_a_comparison_reverses_its_signs(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    forth, back = compare_paired(a, b), compare_paired(b, a)
    assert (back.delta, back.low, back.high) == pytest.approx((-forth.delta, -forth.high, -forth.low), abs=1e-12)
    assert (back.p_value, back.stderr) == pytest.approx((forth.p_value, forth.stderr), abs=1e-12)


@given(PAIRS.flatmap(lambda pairs: st.tuples(st.just(pairs), st.permutations(pairs))))
def test_the_order_of_the_questions_does_not_matter(orders: tuple[list[tuple[bool, bool]], ...]) -> None:
    first, second = (compare_paired([a for a, _ in pairs], [b for _, b in pairs]) for pairs in orders)
    assert first == second


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemars_p_value_is_a_two_sided_sign_test(only_a: int, only_b: int) -> None:
    expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar_p_value(only_a, only_b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("differing", range(11))
def test_mcnemars_p_value_counts_outcomes_at_least_as_lopsided(differing: int) -> None:
    for only_a in range(differing + 1):
        lopsided = abs(2 * only_a - differing)
        extreme = sum(abs(2 * sum(signs) - differing) >= lopsided for signs in product((0, 1), repeat=differing))
        assert mcnemar_p_value(only_a, differing - only_a) == pytest.approx(extreme / 2**differing)


def test_mcnemars_p_value_of_thousands_of_differences_neither_overflows_nor_vanishes() -> None:
    assert mcnemar_p_value(5000, 5000) == 1.0
    assert 0 < mcnemar_p_value(600, 1400) < 1e-60


@pytest.mark.parametrize("cell", [(0.55, 0.1, 0.1, 0.25), (0.5, 0.2, 0.05, 0.25), (0.45, 0.3, 0.05, 0.2)])
def test_the_paired_interval_covers_the_truth_about_as_often_as_it_says(cell: tuple[float, ...]) -> None:
    """Exactly, summing the multinomial probability of every table of 24 questions whose interval holds the truth."""
    n, truth, covered = 24, cell[1] - cell[2], 0.0
    for both in range(n + 1):
        for only_a in range(n + 1 - both):
            for only_b in range(n + 1 - both - only_a):
                neither = n - both - only_a - only_b
                found = compare_paired(*table(both, only_a, only_b, neither))
                if found.low <= truth <= found.high:
                    ways = comb(n, both) * comb(n - both, only_a) * comb(n - both - only_a, only_b)
                    covered += ways * cell[0] ** both * cell[1] ** only_a * cell[2] ** only_b * cell[3] ** neither
    assert 0.94 <= covered <= 0.985


def test_the_paired_interval_agrees_with_a_bootstrap_over_questions() -> None:
    a, b = table(280, 60, 35, 125)
    found = compare_paired(a, b)
    differences = np.array(a, dtype=float) - np.array(b, dtype=float)
    resampled = stats.bootstrap(
        (differences,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((resampled.low, resampled.high), abs=0.004)


@pytest.mark.parametrize(("a", "b"), [([True, False], [True]), ([], []), ([True], [True])])
def test_runs_that_do_not_pair_are_refused(a: list[bool], b: list[bool]) -> None:
    with pytest.raises(PermanentError, match="same questions, two or more"):
        compare_paired(a, b)


def test_equal_runs_differ_by_nothing_with_room_on_both_sides() -> None:
    found = compare_paired([True] * 300 + [False] * 200, [True] * 300 + [False] * 200)
    assert isinstance(found, PairedComparison)
    assert (found.delta, found.p_value, found.only_a, found.only_b) == (0.0, 1.0, 0, 0)
    assert found.low < 0 < found.high
    assert found.high < 0.005


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_adjusts_as_by_its_definition(p_values: list[float]) -> None:
    """By definition: the least level at which the step-down procedure rejects."""
    adjusted = holm_adjust(p_values)
    ordered = sorted(p_values)
    for p, found in zip(p_values, adjusted, strict=True):
        steps = [min(1.0, (len(ordered) - i) * q) for i, q in enumerate(ordered) if q <= p]
        assert found == pytest.approx(max(steps))
        assert p <= found <= 1 or found == pytest.approx(p)


def test_holm_reproduces_a_worked_example() -> None:
    assert holm_adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(("n", "disagreement"), [(150, 0.3), (300, 0.15)])
def test_the_minimal_detectable_difference_is_found_with_about_the_power_asked_for(n: int, disagreement: float) -> None:
    """Power of the asymptotic McNemar test, exactly, by summing over all tables."""
    delta = minimal_detectable_difference(n, disagreement)
    up, down = (disagreement + delta) / 2, (disagreement - delta) / 2
    z = stats.norm.ppf(0.975)
    k, i = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    chance = stats.binom.pmf(k, n, disagreement) * stats.binom.pmf(i, k, up / (up + down))
    power = np.where(np.abs(2 * i - k) > z * np.sqrt(k), chance, 0.0).sum()
    assert power == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("n", "disagreement", "expected"), [(500, 0.0, inf), (3, 0.5, inf)])
def test_where_nothing_can_be_detected_the_difference_is_infinite(n: int, disagreement: float, expected: float) -> None:
    assert minimal_detectable_difference(n, disagreement) == expected


@pytest.mark.parametrize(("n", "disagreement"), [(0, 0.5), (10, -0.1), (10, 1.1)])
def test_impossible_tests_are_refused(n: int, disagreement: float) -> None:
    with pytest.raises(PermanentError, match="no test has"):
        minimal_detectable_difference(n, disagreement)


def line(index: int, *, strict: bool = True, flexible: bool = False, question: str = "q") -> SampleLine:
    return SampleLine(
        index=index,
        question=f"{question}{index}",
        target="1",
        response="",
        strict_match=strict,
        flexible_match=flexible,
    )


def test_samples_are_brought_into_the_order_of_their_questions() -> None:
    samples = {"a": [line(1, strict=False), line(0)], "b": [line(0), line(1, flexible=True)]}
    assert aligned_outcomes(samples) == {"a": [True, False], "b": [True, True]}
    assert aligned_outcomes(samples, match="flexible") == {"a": [False, False], "b": [False, True]}
    assert aligned_outcomes({}) == {}


@pytest.mark.parametrize("other", [[line(0)], [line(0), line(1, question="other ")], [line(0), line(2)]])
def test_runs_that_were_asked_other_questions_are_refused(other: list[SampleLine]) -> None:
    with pytest.raises(PermanentError, match="runs a and b were not asked the same questions"):
        aligned_outcomes({"a": [line(0), line(1)], "b": other})


def test_a_question_answered_twice_is_refused() -> None:
    with pytest.raises(PermanentError, match="run a has two answers"):
        aligned_outcomes({"a": [line(0), line(0)]})
