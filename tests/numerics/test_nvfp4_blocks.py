"""NVFP4 blocks: equal to fouroversix's reference, and right where that reference is not."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from fouroversix import QuantizationConfig, QuantizeBackend, ScaleRule, dequantize
from fouroversix import quantize_to_fp4 as quantize_padded
from fouroversix.quantize.pytorch.reference import quantize_to_fp4
from torch import Tensor

from surogate_bench_quantization.formats.elements import round_stochastic_e2m1_, uniform_noise
from surogate_bench_quantization.formats.nvfp4 import NVFP4Tensor, padded, quantize_rows, quantize_squares
from surogate_bench_quantization.formats.nvfp4_packed import pack, unpack_elements, unpack_products
from surogate_bench_quantization.fusion import SLAB

SQUARES = pytest.mark.parametrize("squares", [False, True], ids=["1x16", "16x16"])
RULES = pytest.mark.parametrize("four_over_six", [False, True], ids=["plain", "four-over-six"])


def quantize(matrix: Tensor, *, squares: bool, four_over_six: bool) -> NVFP4Tensor:
    function = quantize_squares if squares else quantize_rows
    return function(matrix, four_over_six=four_over_six)


def by_fouroversix(matrix: Tensor, *, squares: bool, four_over_six: bool) -> tuple[Tensor, Tensor]:
    """Packed codes (rows, columns / 2), and E4M3 scale bytes (rows, columns / 16)."""
    codes, scales, _ = quantize_to_fp4(
        matrix,
        block_scale_2d=squares,
        scale_rule=ScaleRule.mse if four_over_six else ScaleRule.static_6,
        use_blackwell_scale_layout=False,
    )
    return codes, scales.view(torch.uint8).view(matrix.shape[0], matrix.shape[1] // 16)


def matrices() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(256, 192, generator=generator)
    spread = normal * (2 * torch.randn(256, 1, generator=generator)).exp()
    integers = torch.randint(-8, 9, (256, 192), generator=generator).float()  # full of ties
    heavy = normal / torch.rand(256, 192, generator=generator)
    kinds = [normal, normal * 1e-6, spread, spread * 1e4, integers, integers * 1e-3, heavy]
    return [kind.to(torch.bfloat16) for kind in kinds]


@SQUARES
@RULES
@pytest.mark.parametrize("index", range(7))
def test_codes_and_scales_equal_fouroversix(index: int, squares: bool, four_over_six: bool) -> None:
    matrix = matrices()[index]
    codes, scales = pack(quantize(matrix, squares=squares, four_over_six=four_over_six), matrix)
    if squares:
        scales = scales.repeat_interleave(16, dim=0)
    expected_codes, expected_scales = by_fouroversix(matrix, squares=squares, four_over_six=four_over_six)
    # Under a subnormal block scale the reference does not saturate at 6, and its code for 8 is garbage.
    normal = (scales >= 8) & (expected_scales >= 8)
    assert normal.float().mean() > 0.7
    assert torch.equal(scales[normal], expected_scales[normal])
    per_byte = normal.repeat_interleave(8, dim=1)
    assert torch.equal(codes[per_byte], expected_codes[per_byte])


@SQUARES
@RULES
def test_blocks_under_subnormal_scales_follow_the_formulas(squares: bool, four_over_six: bool) -> None:
    matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(3)) * 1e-5
    matrix[32:] *= 0.01
    matrix[0, 0] = 1.0
    matrix = matrix.to(torch.bfloat16)
    quantized = quantize(matrix, squares=squares, four_over_six=four_over_six)
    height = 16 if squares else 1
    reach = np.float32(1536 if four_over_six else 2688)
    candidates = (6, 4) if four_over_six else (6,)
    for row in range(0, 64, height):
        for column in range(0, 64, 16):
            block = matrix[row : row + height, column : column + 16].float().numpy()
            best = min((block_by_numpy(block, reach, top) for top in candidates), key=lambda candidate: candidate[1])
            ours = quantized.products[row : row + height, column : column + 16].float().numpy()
            assert np.array_equal(ours, best[0])
    assert (quantized.block_scales == 0).any()
    assert ((quantized.block_scales > 0) & (quantized.block_scales < 2.0**-6)).any()


def block_by_numpy(block: np.ndarray, reach: np.float32, top: int) -> tuple[np.ndarray, float]:
    """Element * scale of one block whose largest value goes to ``top``, and its squared error; A is 1."""
    scale = (np.abs(block).max() / np.float32(top) * reach).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    if scale == 0:
        return np.zeros_like(block), float((block.astype(np.float64) ** 2).sum())
    factor = np.float32(1) / (scale * (np.float32(1) / reach))
    elements = np.clip(block * factor, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    products = elements * scale
    return products, float(((products.astype(np.float64) / reach - block) ** 2).sum())


@SQUARES
@RULES
@pytest.mark.parametrize("shape", [(48, 40), (33, 17), (5, 100), (16, 1)])
def test_matrices_that_blocks_do_not_divide_are_padded_as_fouroversix_does(
    shape: tuple[int, int], squares: bool, four_over_six: bool
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16)
    config = QuantizationConfig(
        backend=QuantizeBackend.pytorch,
        block_scale_2d=squares,
        scale_rule=ScaleRule.mse if four_over_six else ScaleRule.static_6,
    )
    expected = dequantize(quantize_padded(matrix, config), torch.float32)
    whole = padded(matrix, rows=squares)
    assert (whole.shape[0] % (16 if squares else 1), whole.shape[1] % 16) == (0, 0)
    products = quantize(whole, squares=squares, four_over_six=four_over_six).products.float()
    assert not products[shape[0] :].any()
    assert not products[:, shape[1] :].any()
    values = products[: shape[0], : shape[1]] * matrix.abs().amax().float() / (1536 if four_over_six else 2688)
    assert torch.equal(values, expected)


def test_a_matrix_of_whole_blocks_is_not_copied() -> None:
    matrix = matrices()[0]
    assert padded(matrix) is matrix
    assert padded(matrix, rows=True) is matrix


@RULES
def test_the_transpose_of_square_blocks_is_quantized_alike(four_over_six: bool) -> None:
    matrix = matrices()[0]
    straight = quantize_squares(matrix, four_over_six=four_over_six)
    transposed = quantize_squares(matrix.t().contiguous(), four_over_six=four_over_six)
    assert torch.equal(straight.products.t(), transposed.products)


def test_tensors_of_several_pieces_are_quantized_as_one() -> None:
    matrix = torch.randn(SLAB // 64, 160, generator=torch.Generator().manual_seed(4)).to(torch.bfloat16)
    assert matrix.numel() > 2 * SLAB
    codes, scales = pack(quantize_rows(matrix, four_over_six=True), matrix)
    expected_codes, expected_scales = by_fouroversix(matrix, squares=False, four_over_six=True)
    assert torch.equal(codes, expected_codes)
    assert torch.equal(scales, expected_scales)


def test_a_tie_between_four_and_six_goes_to_six() -> None:
    block = torch.zeros(1, 16, dtype=torch.bfloat16)
    block[0, 3] = 5.0  # either scale represents it exactly
    quantized = quantize_rows(block, four_over_six=True)
    assert quantized.block_scales.tolist() == [[256.0]]
    assert unpack_elements(pack(quantized, block)[0])[0, 3] == 6.0


def test_four_is_taken_where_it_is_strictly_better() -> None:
    block = torch.full((1, 16), 0.75, dtype=torch.bfloat16)
    block[0, 0] = 1.0  # 3 and 4 of 4 are exact; 4.5 of 6 is not
    quantized = quantize_rows(block, four_over_six=True)
    assert quantized.block_scales.tolist() == [[384.0]]
    assert torch.equal(quantized.products.float() * quantized.tensor_scale, block.float())


def test_four_over_six_has_the_smaller_error_on_gaussian_data() -> None:
    matrix = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    error = {}
    for four_over_six in (False, True):
        quantized = quantize_rows(matrix, four_over_six=four_over_six)
        dequantized = quantized.products.double() * quantized.tensor_scale.double()
        error[four_over_six] = float((dequantized - matrix).square().mean() / matrix.double().square().mean())
    assert error[False] == pytest.approx(0.00917, rel=0.02)
    assert error[True] == pytest.approx(0.00759, rel=0.02)


@SQUARES
@RULES
def test_a_zero_tensor_quantizes_to_zeros(squares: bool, four_over_six: bool) -> None:
    matrix = torch.zeros(32, 32, dtype=torch.bfloat16)
    quantized = quantize(matrix, squares=squares, four_over_six=four_over_six)
    codes, scales = pack(quantized, matrix)
    assert not codes.any()
    assert not scales.any()
    assert quantized.tensor_scale == 0


@SQUARES
@RULES
def test_a_zero_block_quantizes_to_zeros(squares: bool, four_over_six: bool) -> None:
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    matrix[:16, :16] = 0
    quantized = quantize(matrix, squares=squares, four_over_six=four_over_six)
    assert not quantized.products[:16, :16].any()
    assert not quantized.block_scales[0, 0]
    assert quantized.products[:, 16:].any()


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_values_that_are_not_finite_never_pass_silently(bad: float) -> None:
    matrix = torch.ones(1, 32, dtype=torch.bfloat16)
    matrix[0, 20] = bad
    quantized = quantize_rows(matrix, four_over_six=True)
    assert not (quantized.products.float() * quantized.tensor_scale).isfinite().any()


@SQUARES
def test_packing_loses_nothing(squares: bool) -> None:
    matrix = matrices()[2]
    quantized = quantize(matrix, squares=squares, four_over_six=True)
    codes, scales = pack(quantized, matrix)
    assert codes.shape == (256, 96)
    assert codes.dtype == scales.dtype == torch.uint8
    assert torch.equal(unpack_products(codes, scales), quantized.products)


def test_the_even_column_is_in_the_low_nibble() -> None:
    matrix = torch.zeros(1, 16, dtype=torch.bfloat16)
    matrix[0, 0], matrix[0, 1] = 6.0, -1.0
    codes, _ = pack(quantize_rows(matrix, four_over_six=False), matrix)
    assert codes[0, 0] == 0b1010_0111


@pytest.mark.parametrize("value", [0.3, -0.3, 0.05, 1.2, -2.7, 3.999, 4.5, -5.9])
def test_stochastic_rounding_is_unbiased(value: float) -> None:
    count = 400_000
    values = torch.full((count,), value)
    noise = uniform_noise(values, torch.Generator().manual_seed(5))
    rounded = round_stochastic_e2m1_(values.clone(), noise).double()
    low, high = sorted(set(rounded.tolist()))
    assert low < value < high
    share = (value - low) / (high - low)
    deviation = (high - low) * math.sqrt(share * (1 - share) / count)
    assert abs(float(rounded.mean()) - value) < 4 * deviation


def test_stochastic_rounding_never_moves_what_is_representable() -> None:
    grid = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    grid = torch.cat([grid, -grid])[:, None].expand(-1, 2**16).contiguous()
    every_noise = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).expand(16, -1).contiguous()
    assert torch.equal(round_stochastic_e2m1_(grid.clone(), every_noise), grid)


def test_stochastic_rounding_saturates_at_six() -> None:
    values = torch.tensor([6.3, -6.3, 7.9]).repeat(1000)
    noise = uniform_noise(values, torch.Generator().manual_seed(6))
    assert set(round_stochastic_e2m1_(values, noise).tolist()) == {6.0, -6.0}


def test_stochastic_rounding_equals_a_floor_in_float64() -> None:
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(100_000, generator=generator) * 2
    noise = uniform_noise(values, generator)
    exact, uniform = values.double().numpy(), (noise.numpy().astype(np.float64) + 0.5) / 2**16 + 0.5
    step = np.where(np.abs(exact) < 2, 0.5, np.where(np.abs(exact) < 4, 1.0, 2.0))
    expected = np.clip(np.floor(exact / step + uniform) * step, -6, 6)
    rounded = round_stochastic_e2m1_(values.clone(), noise).numpy()
    assert np.array_equal(rounded, expected.astype(np.float32))


def test_noise_repeats_with_its_generator_and_covers_its_range() -> None:
    like = torch.empty(1001, 63)
    first = uniform_noise(like, torch.Generator().manual_seed(8))
    assert torch.equal(first, uniform_noise(like, torch.Generator().manual_seed(8)))
    assert first.shape == like.shape
    counts = torch.bincount((first.view(-1).long() + 2**15) // 2**12, minlength=16).double()
    expected = first.numel() / 16
    assert float(((counts - expected) ** 2 / expected).sum()) < 37.7  # chi-squared, 15 degrees, p = 0.001
