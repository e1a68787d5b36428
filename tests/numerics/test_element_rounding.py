"""Element rounding equals independent casts bit for bit: ml_dtypes always, torch where it has the format."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from surogate_bench_quantization.formats.elements import E2M1, E4M3, E5M2, ElementFormat, round_nearest
from surogate_bench_quantization.formats.fp8 import decode_e4m3, encode
from surogate_bench_quantization.formats.nvfp4_packed import unpack_elements

ML_DTYPE = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2, "e2m1": ml_dtypes.float4_e2m1fn}
TORCH_DTYPE = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
ALL = pytest.mark.parametrize("element", [E4M3, E5M2, E2M1], ids=lambda element: element.name)
FP8 = pytest.mark.parametrize("element", [E4M3, E5M2], ids=lambda element: element.name)


def bits(values: Tensor) -> Tensor:
    return values.view(torch.int32)


def cast_by_ml_dtypes(values: Tensor, element: ElementFormat) -> Tensor:
    clamped = values.clamp(-element.max_value, element.max_value).numpy()
    narrow: NDArray[np.float32] = clamped.astype(ML_DTYPE[element.name]).astype(np.float32)
    return torch.from_numpy(narrow)


def codes_of(element: ElementFormat) -> Tensor:
    """Value of every code of a format, in fp32."""
    count = 16 if element is E2M1 else 256
    values = np.arange(count, dtype=np.uint8).view(ML_DTYPE[element.name]).astype(np.float32)
    return torch.from_numpy(values)


@ALL
def test_every_finite_code_is_a_fixed_point(element: ElementFormat) -> None:
    values = codes_of(element)
    values = values[values.isfinite()]
    assert len(values) == {"e4m3": 254, "e5m2": 248, "e2m1": 16}[element.name]
    assert torch.equal(bits(round_nearest(values, element)), bits(values))


@FP8
def test_every_finite_fp8_code_is_encoded_as_itself(element: ElementFormat) -> None:
    values = codes_of(element)
    finite = values.isfinite()
    assert torch.equal(encode(values, element)[finite], torch.arange(256, dtype=torch.uint8)[finite])


def test_every_finite_e4m3_code_is_decoded_exactly() -> None:
    values = codes_of(E4M3)
    finite = values.isfinite()
    decoded = decode_e4m3(torch.arange(256, dtype=torch.uint8)).float()
    assert torch.equal(bits(decoded)[finite], bits(values)[finite])


def test_every_e2m1_code_is_decoded_exactly_with_the_low_nibble_first() -> None:
    values = codes_of(E2M1)
    packed = torch.tensor([[low | (high << 4) for low in range(16)] for high in range(16)], dtype=torch.uint8)
    decoded = unpack_elements(packed).float().view(16, 16, 2)
    assert torch.equal(bits(decoded[:, :, 0].contiguous()), bits(values.expand(16, 16).contiguous()))
    assert torch.equal(bits(decoded[:, :, 1].contiguous()), bits(values[:, None].expand(16, 16).contiguous()))


@ALL
def test_midpoints_of_neighbouring_codes_round_to_even(element: ElementFormat) -> None:
    values = codes_of(element)
    grid = values[values.isfinite() & ~torch.signbit(values)]  # codes ascend with their values
    midpoints = (grid[1:] + grid[:-1]) / 2
    around = torch.cat(
        [midpoints, torch.nextafter(midpoints, torch.tensor(0.0)), torch.nextafter(midpoints, torch.tensor(1e9))]
    )
    around = torch.cat([around, -around])
    assert torch.equal(bits(round_nearest(around, element)), bits(cast_by_ml_dtypes(around, element)))


def test_e2m1_ties_round_to_even_codes() -> None:
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    assert round_nearest(ties, E2M1).tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]


def test_half_of_the_smallest_e4m3_subnormal_rounds_to_zero() -> None:
    values = torch.tensor([2.0**-9, 2.0**-10, 1.5 * 2.0**-10, -(2.0**-10)])
    assert round_nearest(values, E4M3).tolist() == [2.0**-9, 0.0, 2.0**-9, 0.0]


@ALL
def test_values_that_are_too_large_saturate(element: ElementFormat) -> None:
    top = element.max_value
    values = torch.tensor([top * 1.01, 1e30, torch.inf, -torch.inf, -1e30])
    assert round_nearest(values, element).tolist() == [top, top, top, -top, -top]


@ALL
def test_the_sign_of_zero_is_kept(element: ElementFormat) -> None:
    values = torch.tensor([0.0, -0.0, -1e-30])
    assert torch.signbit(round_nearest(values, element)).tolist() == [False, True, True]


@ALL
def test_nan_stays_nan(element: ElementFormat) -> None:
    assert round_nearest(torch.tensor([torch.nan]), element).isnan().all()


@ALL
def test_every_bf16_number_rounds_as_ml_dtypes_rounds_it(element: ElementFormat) -> None:
    values = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()
    values = values[~values.isnan()]
    assert torch.equal(bits(round_nearest(values, element)), bits(cast_by_ml_dtypes(values, element)))


@ALL
def test_millions_of_fp32_bit_patterns_round_as_ml_dtypes_rounds_them(element: ElementFormat) -> None:
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(-(2**31), 2**31 - 1, (2_000_000,), generator=generator, dtype=torch.int32)
    in_range = torch.randn(2_000_000, generator=generator) * element.max_value / 4
    values = torch.cat([patterns.view(torch.float32), in_range, in_range * element.min_normal / element.max_value])
    values = values[~values.isnan()]
    assert torch.equal(bits(round_nearest(values, element)), bits(cast_by_ml_dtypes(values, element)))


@FP8
def test_millions_of_fp32_numbers_round_as_torch_casts_them(element: ElementFormat) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(2_000_000, generator=generator) * element.max_value / 4
    values = torch.cat([values, values * element.min_normal / element.max_value])
    clamped = values.clamp(-element.max_value, element.max_value)
    assert torch.equal(bits(round_nearest(values, element)), bits(clamped.to(TORCH_DTYPE[element.name]).float()))


@ALL
@given(numbers=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_any_number_rounds_as_ml_dtypes_rounds_it(element: ElementFormat, numbers: list[float]) -> None:
    values = torch.tensor(numbers)
    assert torch.equal(bits(round_nearest(values, element)), bits(cast_by_ml_dtypes(values, element)))
