"""FP8 and NVFP4 quantization once more, in NumPy with ml_dtypes' casts: shares no code with what it checks."""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FORMATS: dict[str, tuple[Any, float]] = {
    "e4m3": (ml_dtypes.float8_e4m3fn, 448.0),
    "e5m2": (ml_dtypes.float8_e5m2, 57344.0),
    "e2m1": (ml_dtypes.float4_e2m1fn, 6.0),
}
f32 = np.float32


class Blocks(NamedTuple):
    """An NVFP4 matrix: element * block scale, block scales, tensor scale; all fp32."""

    products: Array
    scales: Array
    tensor_scale: Any


def rounded(values: Array, element: str) -> Array:
    """fp32 to the nearest number of a format, saturating, as fp32."""
    dtype, largest = FORMATS[element]
    return np.clip(values, -largest, largest).astype(dtype).astype(f32)


def scaled(values: Array, scale: Any, element: str) -> Array:
    """Codes of values under a per-tensor scale."""
    with np.errstate(over="ignore"):
        return rounded(values * f32(scale), element)


def current_scale(largest: Array, element: str) -> Array:
    """MAX / max(amax, 1e-10), each operation in fp32."""
    return f32(FORMATS[element][1]) / np.maximum(largest, f32(1e-10))


def tiles(values: Array, size: int = 128) -> tuple[Array, Array]:
    """E4M3 codes with a scale per 128x128 tile, and what codes are multiplied by: 1 / scale."""
    codes, inverse = np.empty_like(values), []
    for top in range(0, values.shape[0], size):
        row = []
        for left in range(0, values.shape[1], size):
            tile = values[top : top + size, left : left + size]
            scale = current_scale(np.abs(tile).max(), "e4m3")
            codes[top : top + size, left : left + size] = scaled(tile, scale, "e4m3")
            row.append(f32(1) / scale)
        inverse.append(row)
    return codes, np.array(inverse, dtype=f32)


def nvfp4(values: Array, *, height: int = 1, four_over_six: bool = False, noise: Array | None = None) -> Blocks:
    """Quantize in blocks of (height, 16)."""
    rows, columns = values.shape
    grid = (rows // height, columns // 16)

    def cut(matrix: Array) -> Array:
        blocks = matrix.reshape(grid[0], height, grid[1], 16).transpose(0, 2, 1, 3)
        return blocks.reshape(grid[0] * grid[1], -1)

    blocks = cut(values)
    reach = f32(6 * 256 if four_over_six else 6 * 448)
    block_amax = np.abs(blocks).max(axis=1, keepdims=True)
    amax = block_amax.max()
    with np.errstate(divide="ignore", over="ignore"):
        encode = min(f32(reach / amax), np.finfo(f32).max)
    decode = f32(1) / encode
    target = (block_amax / f32(6)) * encode
    drawn = None if noise is None else cut(noise)
    products, scales = _elements(blocks, rounded(target, "e4m3"), decode, drawn)
    if four_over_six:
        others, other_scales = _elements(blocks, rounded(target * f32(1.5), "e4m3"), decode, None)
        better = _error(others, amax, reach, blocks) < _error(products, amax, reach, blocks)
        products, scales = np.where(better, others, products), np.where(better, other_scales, scales)
    whole = products.reshape(*grid, height, 16).transpose(0, 2, 1, 3).reshape(rows, columns)
    return Blocks(whole, scales.reshape(grid), f32(amax / reach))


def _elements(blocks: Array, scales: Array, decode: Any, noise: Array | None) -> tuple[Array, Array]:
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.where(scales == 0, f32(0), f32(1) / (scales * decode)).astype(f32)
    elements = blocks * factor
    return (rounded(elements, "e2m1") if noise is None else _stochastic(elements, noise)) * scales, scales


def _stochastic(values: Array, noise: Array) -> Array:
    """Up where the distance to the lower neighbour and centred noise of one step pass one half; in float64."""
    magnitudes = np.abs(values.astype(np.float64))
    step = np.exp2(np.floor(np.log2(np.maximum(magnitudes, 1.0))) - 1)
    low = np.floor(values / step) * step
    up = (values - low) / step + (noise.astype(np.float64) + 0.5) / 65536 > 0.5
    return np.clip(low + step * up, -6, 6).astype(f32)


def _error(products: Array, amax: Any, reach: Any, blocks: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.square(products * amax / reach - blocks).sum(axis=1, keepdims=True)
