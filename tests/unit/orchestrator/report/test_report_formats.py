"""How the report writes figures, and how it smooths losses."""

import numpy as np
import pytest

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench_orchestrator.report.charts.loss import averaging_window, moving_average
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.recipe_texts import recipe_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1_572_864, "1.50 MiB"),
        (943_718_400, "900 MiB"),
        (12 * 2**30, "12.0 GiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_sizes_have_a_binary_unit(count: int | None, text: str) -> None:
    assert formats.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1m 00s"), (3599.4, "59m 59s"), (7500, "2h 05m")],
)
def test_durations_are_as_coarse_as_they_are_long(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("p_value", "text", "marks"),
    [
        (1.0, "p = 1.00", ""),
        (0.05, "p = 0.050", ""),
        (0.0501, "p = 0.050", ""),
        (0.0499, "p = 0.0499", "*"),
        (0.0497, "p = 0.0497", "*"),
        (0.049996, "p = 0.049996", "*"),
        (0.0472, "p = 0.047", "*"),
        (0.0099, "p = 0.0099", "**"),
        (0.0101, "p = 0.010", "*"),
        (0.00099, "p < 0.001", "***"),
    ],
)
def test_asterisks_go_by_the_exact_p_value(p_value: float, text: str, marks: str) -> None:
    assert (formats.p_text(p_value), formats.significance(p_value)) == (text, marks)


@pytest.mark.parametrize("limit", [0.05, 0.01, 0.001])
def test_a_printed_p_is_on_its_side_of_every_threshold(limit: float) -> None:
    for exponent in range(2, 15):
        for p_value in (limit * (1 - 10.0**-exponent), limit, limit * (1 + 10.0**-exponent)):
            text = formats.p_text(p_value)
            shown = 0.0 if text.startswith("p < ") else float(text.removeprefix("p = "))
            assert [shown < each for each in (0.05, 0.01, 0.001)] == [p_value < each for each in (0.05, 0.01, 0.001)]


def test_differences_always_have_a_sign() -> None:
    assert formats.signed(0.0123) == "+0.0123"
    assert formats.signed(-0.0123) == "\N{MINUS SIGN}0.0123"
    assert formats.points(-0.123) == "\N{MINUS SIGN}12.3"


def test_a_loss_that_is_no_number_says_so() -> None:
    assert formats.loss(float("nan")) == "diverged"
    assert formats.loss(0.12345) == "0.123"


def test_long_names_are_cut_for_charts() -> None:
    assert formats.short("QFP8 +\nfp8-hybrid") == "QFP8 + fp8-hybrid"
    assert len(formats.short("x" * 100)) == 28


def test_the_moving_average_is_centred_and_follows_the_start() -> None:
    line = np.arange(1.0, 41.0)
    smooth = moving_average(line.tolist(), 5)
    np.testing.assert_allclose(smooth[:-2], line[:-2])
    assert smooth[-1] == pytest.approx((38 + 39 + 40) / 3)
    spike = moving_average([0.0] * 10 + [1.0] + [0.0] * 10, 5)
    np.testing.assert_allclose(np.flatnonzero(spike > 1e-12), [8, 9, 10, 11, 12])
    assert spike[10] == pytest.approx(1 / 5)


@pytest.mark.parametrize(("steps", "window"), [(1, 5), (238, 15), (300, 21), (100_000, 51)])
def test_the_averaging_window_grows_with_the_run(steps: int, window: int) -> None:
    assert averaging_window(steps) == window


def test_a_recipe_is_described_with_what_deviates() -> None:
    recipe = Recipe(
        name="mine",
        title="Mine",
        weight_storage=WeightStorage.BF16,
        compute=ComputePrecision.NVFP4,
        fp4_profile="surogate",
        skip_last_layers=4,
    )
    text = recipe_text(recipe)
    assert "NVFP4" in text.compute
    assert "last 4 blocks stay in bf16" in text.details
    assert "surogate" in text.details
