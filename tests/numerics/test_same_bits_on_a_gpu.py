"""Number formats on a GPU, where their functions are compiled, against the same functions on the CPU: the same bits.

The CPU's results are held against independent oracles by the other tests of this folder.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from surogate_bench_trainer.formats.elements import E4M3, E5M2, ElementFormat, uniform_noise
from surogate_bench_trainer.formats.fp8 import (
    amax,
    cast_current,
    cast_scaled,
    decode_e4m3,
    dequantize_tiles,
    quantize_current,
    quantize_scaled,
    quantize_tiles,
)
from surogate_bench_trainer.formats.nvfp4 import NVFP4Tensor, quantize_rows, quantize_squares
from surogate_bench_trainer.formats.nvfp4_packed import pack, unpack_products

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

SHAPES = [(16, 16), (48, 160), (300, 1024), (4096, 3072)]
NEAR_TIES = 1e-5
"""Share of blocks in which 4/6 may choose otherwise: two errors that differ by less than the rounding of their sums."""


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


def both(function: Callable[..., Tensor | tuple[Tensor, ...]], *tensors: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The function's results on the CPU and on the GPU, pair by pair."""
    on_cpu, on_gpu = function(*(t.clone() for t in tensors)), function(*(t.cuda() for t in tensors))
    if isinstance(on_cpu, Tensor):
        on_cpu, on_gpu = (on_cpu,), (on_gpu,)
    return [(first, second.cpu()) for first, second in zip(on_cpu, on_gpu, strict=True)]


def assert_same(function: Callable[..., Tensor | tuple[Tensor, ...]], *tensors: Tensor) -> None:
    for on_cpu, on_gpu in both(function, *tensors):
        assert on_cpu.dtype == on_gpu.dtype
        assert torch.equal(on_cpu.float(), on_gpu.float())


@MATRICES
@ELEMENTS
def test_fp8_codes_with_a_given_scale(matrix: Tensor, element: ElementFormat) -> None:
    for scale in (1.0, 0.0371, 448 / 3.7):
        assert_same(lambda values, factor: quantize_scaled(values, factor, element), matrix, torch.tensor(scale))
        assert_same(lambda values, factor: cast_scaled(values, factor, element), matrix, torch.tensor(scale))


@MATRICES
@ELEMENTS
def test_fp8_codes_and_scales_of_current_scaling(matrix: Tensor, element: ElementFormat) -> None:
    assert_same(lambda values: quantize_current(values, element), matrix)
    assert_same(lambda values: cast_current(values, element), matrix)


@MATRICES
@ELEMENTS
def test_tensor_cores_are_given_the_codes_that_are_emulated(matrix: Tensor, element: ElementFormat) -> None:
    emulated, scale = quantize_current(matrix.cuda(), element)
    cast, inverse_scale = cast_current(matrix.cuda(), element)
    assert torch.equal(emulated.float(), cast.float())
    assert torch.equal(scale.reciprocal(), inverse_scale)


@MATRICES
def test_fp8_tiles(matrix: Tensor) -> None:
    assert_same(quantize_tiles, matrix)
    assert_same(dequantize_tiles, *quantize_tiles(matrix))


def test_every_e4m3_byte_decodes_alike() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    assert_same(decode_e4m3, codes[(codes & 0x7F) != 0x7F])


def test_the_largest_magnitude_of_a_tensor_with_a_nan_is_nan() -> None:
    values = random((64, 64))
    values[5, 7] = torch.nan
    assert amax(values.cuda()).isnan()


@MATRICES
def test_nvfp4_blocks_rounded_to_nearest(matrix: Tensor) -> None:
    assert_same(lambda values: quantize_rows(values, four_over_six=False), matrix)


@MATRICES
def test_nvfp4_blocks_rounded_stochastically_with_the_same_noise(matrix: Tensor) -> None:
    noise = uniform_noise(matrix, torch.Generator().manual_seed(1))
    assert_same(lambda values, drawn: quantize_rows(values, four_over_six=False, noise=drawn), matrix, noise)


@MATRICES
@pytest.mark.parametrize("squares", [False, True], ids=["rows", "squares"])
def test_four_over_six_but_for_near_ties(matrix: Tensor, squares: bool) -> None:
    def quantize(values: Tensor) -> NVFP4Tensor:
        return quantize_squares(values, four_over_six=True) if squares else quantize_rows(values, four_over_six=True)

    (products, scales, tensor_scales) = both(quantize, matrix)
    assert torch.equal(*tensor_scales)
    chosen_otherwise = float((scales[0] != scales[1]).float().mean())
    assert chosen_otherwise <= NEAR_TIES
    assert float((products[0] != products[1]).float().mean()) <= NEAR_TIES


@MATRICES
def test_packed_nvfp4(matrix: Tensor) -> None:
    quantized = quantize_rows(matrix, four_over_six=False)
    assert_same(lambda *parts: pack(NVFP4Tensor(*parts[:3]), parts[3]), *quantized, matrix)
    assert_same(unpack_products, *pack(quantized, matrix))


def test_shapes_that_change_from_call_to_call_do_not_compile_without_end() -> None:
    torch._dynamo.reset()
    for rows in range(2000, 2040):
        quantize_rows(random((rows, 512)).cuda(), four_over_six=True)
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 6
