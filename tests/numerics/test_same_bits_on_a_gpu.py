"""Number formats against formulas of their own in NumPy: the same bits on the CPU and, compiled, on a GPU."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from surogate_bench_quantization import oracle as independent
from surogate_bench_quantization.formats.elements import E4M3, E5M2, ElementFormat, uniform_noise
from surogate_bench_quantization.formats.fp8 import (
    amax,
    cast_current,
    cast_scaled,
    decode_e4m3,
    dequantize_tiles,
    quantize_current,
    quantize_scaled,
    quantize_tiles,
)
from surogate_bench_quantization.formats.nvfp4 import quantize_rows, quantize_squares
from surogate_bench_quantization.formats.nvfp4_packed import E2M1_VALUES, pack, unpack_products

SHAPES = [(16, 16), (48, 160), (300, 1024), *([(4096, 3072)] if torch.cuda.is_available() else [])]
NEAR_TIES = 1e-5
"""Share of blocks in which 4/6 may choose otherwise: two errors that differ by less than the rounding of their sums."""
NEAR_STEPS = 1e-4
"""Share of elements whose stochastic rounding fp32 and float64 may decide differently."""


def every_bf16() -> Tensor:
    """All finite bf16 numbers."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    return torch.where(values.isfinite(), values, torch.zeros_like(values)).view(256, 256)


def random(shape: tuple[int, int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(shape[0], 1, generator=generator).mul(2).exp()
    return (torch.randn(shape, generator=generator) * rows).to(torch.bfloat16)


def matrices() -> list[Tensor]:
    with_zeros = random((64, 256), 5)
    with_zeros[:, :32] = 0
    with_zeros[3] = -0.0
    return [
        *(random(shape) for shape in SHAPES),
        every_bf16(),
        with_zeros,
        torch.zeros(32, 64, dtype=torch.bfloat16),
        random((64, 64)) * 1e-30,
        random((64, 64)) * 1e30,
    ]


MATRICES = pytest.mark.parametrize("matrix", matrices(), ids=lambda matrix: "x".join(map(str, matrix.shape)))
ELEMENTS = pytest.mark.parametrize("element", [E4M3, E5M2], ids=["e4m3", "e5m2"])


def numbers(tensor: Tensor) -> independent.Array:
    """fp32 values of a tensor on any device."""
    array: independent.Array = tensor.float().cpu().numpy()
    return array


def bytes_as(tensor: Tensor, dtype: Any) -> independent.Array:
    """fp32 values of bytes."""
    array: independent.Array = tensor.cpu().numpy().view(dtype).astype(np.float32)
    return array


def assert_equal(found: Tensor, expected: Any) -> None:
    np.testing.assert_array_equal(numbers(found), expected)


@MATRICES
@ELEMENTS
def test_fp8_codes_with_a_given_scale_equal_the_numpy_formulas(
    matrix: Tensor, element: ElementFormat, device: torch.device
) -> None:
    for scale in (1.0, 0.0371, 448 / 3.7):
        expected = independent.scaled(numbers(matrix), scale, element.name)
        factor = torch.tensor(scale, device=device)
        assert_equal(quantize_scaled(matrix.to(device), factor, element), expected)
        assert_equal(cast_scaled(matrix.to(device), factor, element), expected)


@MATRICES
@ELEMENTS
def test_fp8_codes_and_scales_of_current_scaling_equal_the_numpy_formulas(
    matrix: Tensor, element: ElementFormat, device: torch.device
) -> None:
    scale = independent.current_scale(np.abs(numbers(matrix)).max(), element.name)
    expected = independent.scaled(numbers(matrix), scale, element.name)
    codes, found = quantize_current(matrix.to(device), element)
    assert_equal(codes, expected)
    assert_equal(found, scale)
    cast, inverse = cast_current(matrix.to(device), element)
    assert_equal(cast, expected)
    assert_equal(inverse, np.float32(1) / scale)


@MATRICES
def test_fp8_tiles_equal_the_numpy_formulas(matrix: Tensor, device: torch.device) -> None:
    expected, factors = independent.tiles(numbers(matrix))
    codes, inverse = quantize_tiles(matrix.to(device))
    np.testing.assert_array_equal(bytes_as(codes, ml_dtypes.float8_e4m3fn), expected)
    assert_equal(inverse, factors)
    rows, columns = matrix.shape
    products = expected * factors.repeat(128, axis=0)[:rows].repeat(128, axis=1)[:, :columns]
    assert_equal(dequantize_tiles(codes, inverse), products.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_every_e4m3_byte_decodes_to_the_value_of_the_numpy_formula(device: torch.device) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    codes = codes[(codes & 0x7F) != 0x7F]
    assert_equal(decode_e4m3(codes.to(device)), bytes_as(codes, ml_dtypes.float8_e4m3fn))


def test_the_largest_magnitude_of_a_tensor_with_a_nan_is_nan(device: torch.device) -> None:
    values = random((64, 64))
    values[5, 7] = torch.nan
    assert amax(values.to(device)).isnan()


@MATRICES
def test_nvfp4_blocks_rounded_to_nearest_equal_the_numpy_formulas(matrix: Tensor, device: torch.device) -> None:
    expected = independent.nvfp4(numbers(matrix))
    for found, exact in zip(quantize_rows(matrix.to(device), four_over_six=False), expected, strict=True):
        assert_equal(found, exact)


@MATRICES
def test_nvfp4_blocks_rounded_stochastically_equal_the_numpy_formulas(matrix: Tensor, device: torch.device) -> None:
    noise = uniform_noise(matrix, torch.Generator().manual_seed(1))
    expected = independent.nvfp4(numbers(matrix), noise=noise.numpy())
    found = quantize_rows(matrix.to(device), four_over_six=False, noise=noise.to(device))
    assert_equal(found.block_scales, expected.scales)
    assert_equal(found.tensor_scale, expected.tensor_scale)
    assert np.mean(numbers(found.products) != expected.products) <= NEAR_STEPS


@MATRICES
@pytest.mark.parametrize("height", [1, 16], ids=["rows", "squares"])
def test_four_over_six_equals_the_numpy_formulas_except_for_near_ties(
    matrix: Tensor, height: int, device: torch.device
) -> None:
    if matrix.shape[0] % height:
        pytest.skip("no whole squares")
    expected = independent.nvfp4(numbers(matrix), height=height, four_over_six=True)
    quantize = quantize_rows if height == 1 else quantize_squares
    found = quantize(matrix.to(device), four_over_six=True)
    assert_equal(found.tensor_scale, expected.tensor_scale)
    assert np.mean(numbers(found.block_scales) != expected.scales) <= NEAR_TIES
    assert np.mean(numbers(found.products) != expected.products) <= NEAR_TIES


@MATRICES
def test_packed_nvfp4_equals_the_numpy_formulas(matrix: Tensor, device: torch.device) -> None:
    expected = independent.nvfp4(numbers(matrix))
    quantized = quantize_rows(matrix.to(device), four_over_six=False)
    codes, scales = pack(quantized, matrix.to(device))
    np.testing.assert_array_equal(bytes_as(scales, ml_dtypes.float8_e4m3fn), expected.scales)
    packed = codes.cpu().numpy()
    nibbles = np.stack((packed & 15, packed >> 4), axis=-1).reshape(matrix.shape)
    elements = np.array(E2M1_VALUES, dtype=np.float32)[nibbles]
    np.testing.assert_array_equal(elements * expected.scales.repeat(16, axis=1), expected.products)
    assert_equal(unpack_products(codes, scales), expected.products)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_shapes_that_change_between_calls_do_not_recompile_endlessly() -> None:
    torch._dynamo.reset()
    for rows in range(2000, 2040):
        quantize_rows(random((rows, 512)).cuda(), four_over_six=True)
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 6


@MATRICES
@pytest.mark.parametrize("element", ["e4m3", "e5m2", "e2m1"])
def test_the_tables_of_the_oracle_round_as_ml_dtypes_does(matrix: Tensor, element: str) -> None:
    values = numbers(matrix)
    ties = independent.decoded(np.arange(256, dtype=np.uint8), element).repeat(3) * np.float32([1, 1.25, 1.125] * 256)
    for each in (values, ties, values * np.float32(0.37)):
        expected = independent.rounded(each, element)
        np.testing.assert_array_equal(independent.rounded_by_table(each, element), expected)
        np.testing.assert_array_equal(np.signbit(independent.rounded_by_table(each, element)), np.signbit(expected))


def test_the_oracle_decodes_bytes_and_rounds_to_bf16_as_ml_dtypes_does() -> None:
    for element, dtype in (("e4m3", ml_dtypes.float8_e4m3fn), ("e5m2", ml_dtypes.float8_e5m2)):
        expected = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(
            independent.decoded(np.arange(256, dtype=np.uint8), element)[finite], expected[finite]
        )
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    np.testing.assert_array_equal(independent.to_bf16(values), values.astype(ml_dtypes.bfloat16).astype(np.float32))
