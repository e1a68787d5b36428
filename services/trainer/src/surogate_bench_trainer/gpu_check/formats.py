"""Comparison of number formats on the device with formulas in NumPy: codes and scales must be equal bit for bit."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from surogate_bench.machine.checks import Comparison, compare
from surogate_bench_quantization import oracle
from surogate_bench_quantization.formats.elements import E4M3, E5M2, ElementFormat, uniform_noise
from surogate_bench_quantization.formats.fp8 import (
    cast_current,
    cast_scaled,
    dequantize_tiles,
    quantize_current,
    quantize_scaled,
    quantize_tiles,
)
from surogate_bench_quantization.formats.nvfp4 import quantize_rows, quantize_squares
from surogate_bench_quantization.formats.nvfp4_packed import pack, unpack_products
from surogate_bench_quantization.formats.nvfp4_swizzled import swizzled
from surogate_bench_quantization.storage.nf4 import nf4_linear
from surogate_bench_trainer.gpu_check.recorder import Finding
from surogate_bench_trainer.gpu_check.settings import Setting
from surogate_bench_trainer.gpu_check.tensors import bare_linear, numbers, random_matrix

NEAR_TIES = 1e-5
"""Share of blocks in which 4/6 may choose otherwise: two errors that differ by less than the rounding of their sums."""
NEAR_STEPS = 1e-4
"""Share of elements whose stochastic rounding fp32 and float64 may decide differently."""
NF4_THRESHOLDS = 1e-4
"""Share of values so near to the middle of two NF4 numbers that bitsandbytes' division decides otherwise."""
NF4_SCALES = 0.02
"""Error of a block's scale, relative to the largest, that its 8-bit storage may cause."""
NF4_VALUES = 2.0**-7
"""Relative error of dequantized values: two steps of bf16, as bitsandbytes may round the scale too."""

Measure = Callable[[], Finding]


def format_checks(setting: Setting) -> Iterator[tuple[str, Measure]]:
    """Yield name and check of every number format."""
    measures: dict[str, Callable[[Tensor], list[Comparison]]] = {
        "E4M3 codes": partial(_fp8, element=E4M3),
        "E5M2 codes": partial(_fp8, element=E5M2),
        "FP8 tiles of 128x128": _tiles,
        "NVFP4 to nearest, packed": _nvfp4,
        "NVFP4 as FP4 tensor cores take it": _swizzled,
        "NVFP4 stochastic": _stochastic,
        "NVFP4 four over six": _four_over_six,
        "NF4": _nf4,
    }
    for name, measure in measures.items():
        yield f"{name} on {setting.device.type}", partial(_worst, measure, setting)


def _worst(measure: Callable[[Tensor], list[Comparison]], setting: Setting) -> Finding:
    """Compare on every matrix, and keep the largest number of each quantity."""
    worst: dict[str, Comparison] = {}
    for matrix in _matrices(setting):
        for comparison in measure(matrix):
            kept = worst.setdefault(comparison.quantity, comparison)
            if comparison.found is None or (kept.found is not None and comparison.found > kept.found):
                worst[comparison.quantity] = comparison
    return Finding(comparisons=tuple(worst.values()))


def _matrices(setting: Setting) -> Iterator[Tensor]:
    """Yield bf16 matrices on the device, whose dimensions are multiples of 16 and whose sizes are multiples of 64."""
    rows, columns, _ = setting.products[-1]
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    with_zeros = random_matrix(64, 256, seed=5)
    with_zeros[:, :32] = 0
    yield from (
        matrix.to(setting.device)
        for matrix in (
            random_matrix(rows, columns, seed=0),
            random_matrix(304, 1024, seed=1),
            torch.where(every.isfinite(), every, torch.zeros_like(every)).view(256, 256),
            with_zeros,
            random_matrix(64, 64, seed=2) * 1e-30,
            random_matrix(64, 64, seed=3) * 1e30,
        )
    )


def differing(found: Tensor | NDArray[np.float32], expected: NDArray[np.float32] | np.float32) -> float:
    """Return the share of numbers that are not equal."""
    values = numbers(found) if isinstance(found, Tensor) else found
    return float(np.mean(values != expected))


def _fp8(matrix: Tensor, element: ElementFormat) -> list[Comparison]:
    exact = numbers(matrix)
    given = oracle.scaled(exact, 0.0371, element.name)
    factor = torch.tensor(0.0371, device=matrix.device)
    scale = oracle.current_scale(np.abs(exact).max(), element.name)
    own = oracle.scaled(exact, scale, element.name)
    codes, found = quantize_current(matrix, element)
    cast, inverse = cast_current(matrix, element)
    return [
        compare("differing emulated codes", max(differing(quantize_scaled(matrix, factor, element), given),
                                                differing(codes, own)), 0.0),
        compare("differing cast codes", max(differing(cast_scaled(matrix, factor, element), given),
                                            differing(cast, own)), 0.0),
        compare("differing scales", max(differing(found, scale), differing(inverse, np.float32(1) / scale)), 0.0),
    ]  # fmt: skip


def _tiles(matrix: Tensor) -> list[Comparison]:
    exact = numbers(matrix)
    expected, factors = oracle.tiles(exact)
    codes, inverse = quantize_tiles(matrix)
    return [
        compare("differing codes", differing(oracle.decoded(codes.cpu().numpy(), "e4m3"), expected), 0.0),
        compare("differing scales", differing(inverse, factors), 0.0),
        compare("differing values", differing(dequantize_tiles(codes, inverse), oracle.tiles_dequantized(exact)), 0.0),
    ]


def _nvfp4(matrix: Tensor) -> list[Comparison]:
    expected = oracle.nvfp4(numbers(matrix))
    found = quantize_rows(matrix, four_over_six=False)
    codes, scales = pack(found, matrix)
    nibbles = codes.cpu().numpy()
    elements = oracle.decoded(np.stack((nibbles & 15, nibbles >> 4), axis=-1).reshape(matrix.shape), "e2m1")
    unpacked = elements * oracle.decoded(scales.cpu().numpy(), "e4m3").repeat(16, axis=1)
    return [
        compare("differing values", differing(found.products, expected.products), 0.0),
        compare("differing block scales", differing(found.block_scales, expected.scales), 0.0),
        compare("differing tensor scales", differing(found.tensor_scale, expected.tensor_scale), 0.0),
        compare("differing packed values", max(differing(unpacked, expected.products),
                                               differing(unpack_products(codes, scales), expected.products)), 0.0),
    ]  # fmt: skip


def _swizzled(matrix: Tensor) -> list[Comparison]:
    found = swizzled(quantize_squares(matrix, four_over_six=False))
    expected = oracle.nvfp4(numbers(matrix), height=16)
    rows, columns = matrix.shape
    bytes_of_scales = found.block_scales.cpu().numpy()
    scales = oracle.decoded(oracle.from_tiles(bytes_of_scales, rows, columns // 16), "e4m3")
    nibbles = found.codes.cpu().numpy()[:rows, : columns // 2]
    elements = oracle.decoded(np.stack((nibbles & 15, nibbles >> 4), axis=-1).reshape(rows, columns), "e2m1")
    return [
        compare("differing block scales", differing(scales, expected.scales.repeat(16, axis=0)), 0.0),
        compare("differing values", differing(elements * scales.repeat(16, axis=1), expected.products), 0.0),
    ]


def _stochastic(matrix: Tensor) -> list[Comparison]:
    noise = uniform_noise(matrix, torch.Generator(matrix.device).manual_seed(1))
    expected = oracle.nvfp4(numbers(matrix), noise=noise.cpu().numpy())
    found = quantize_rows(matrix, four_over_six=False, noise=noise)
    return [
        compare("differing values", differing(found.products, expected.products), NEAR_STEPS),
        compare("differing block scales", differing(found.block_scales, expected.scales), 0.0),
    ]


def _four_over_six(matrix: Tensor) -> list[Comparison]:
    found = []
    for height, quantize in ((1, quantize_rows), (16, quantize_squares)):
        expected = oracle.nvfp4(numbers(matrix), height=height, four_over_six=True)
        quantized = quantize(matrix, four_over_six=True)
        found.append(compare("differing values", differing(quantized.products, expected.products), NEAR_TIES))
        found.append(compare("differing block scales", differing(quantized.block_scales, expected.scales), NEAR_TIES))
    return found


def _nf4(matrix: Tensor) -> list[Comparison]:
    if bool(matrix.abs().max() > 1e6) or bool((matrix.abs().view(-1, 64).amax(dim=1) < 1e-6).any()):  # noqa: PLR2004
        return []  # scales in 8 bits hold no such range
    layer = nf4_linear(bare_linear(matrix))
    packed, state = layer.weight.data.view(torch.uint8).flatten().cpu().numpy(), layer.weight.quant_state
    codes = np.stack((packed >> 4, packed & 15), axis=-1).reshape(matrix.shape)
    groups = numbers(state.state2.absmax).repeat(256)[: state.absmax.numel()]
    scales = numbers(state.state2.code)[state.absmax.cpu().numpy()] * groups + numbers(state.offset)
    values = np.array(oracle.NF4_VALUES, dtype=np.float32)[codes] * scales.repeat(64).reshape(matrix.shape)
    with torch.no_grad():
        identity = torch.eye(matrix.shape[1], dtype=torch.bfloat16, device=matrix.device)
        dequantized = numbers(layer(identity).t())
    exact = np.abs(numbers(matrix)).reshape(-1, 64).max(axis=1)
    return [
        compare("differing codes", float(np.mean(codes != oracle.nf4_codes(numbers(matrix)))), NF4_THRESHOLDS),
        compare("error of scales", float(np.abs(scales - exact).max() / exact.max()), NF4_SCALES),
        compare("relative error of values", _relative_error(dequantized, values), NF4_VALUES),
    ]


def _relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float((np.abs(found - expected) / np.maximum(np.abs(expected), np.float32(1e-20))).max())
