"""FP8, NVFP4 and NF4 once more, in NumPy: shares no code with what it checks.

Roundings are ml_dtypes' casts where that package is installed, and otherwise tables of each format's numbers.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Noise = NDArray[np.int16]
f32 = np.float32
_HALF = 0.5
_Number = TypeVar("_Number", bound=np.generic)

NF4_VALUES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 16 numbers of 4-bit NormalFloat (QLoRA, arXiv:2305.14314, appendix E)."""


class _Format(NamedTuple):
    exponent_bits: int
    mantissa_bits: int
    bias: int
    largest: float
    ml_dtype: str


_FORMATS: Mapping[str, _Format] = {
    "e4m3": _Format(4, 3, 7, 448.0, "float8_e4m3fn"),
    "e5m2": _Format(5, 2, 15, 57344.0, "float8_e5m2"),
    "e2m1": _Format(2, 1, 1, 6.0, "float4_e2m1fn"),
}


class Blocks(NamedTuple):
    """An NVFP4 matrix: element * block scale, block scales, tensor scale; all fp32."""

    products: Array
    scales: Array
    tensor_scale: np.float32


def source() -> str:
    """Return where roundings come from: ml_dtypes and its version, or the tables of this module."""
    return f"ml_dtypes {version('ml_dtypes')}" if find_spec("ml_dtypes") else "tables of the formats' numbers"


def rounded(values: Array, element: str) -> Array:
    """fp32 to the nearest number of a format, ties to even, saturating, as fp32."""
    if not find_spec("ml_dtypes"):
        return rounded_by_table(values, element)
    import ml_dtypes  # noqa: PLC0415 - not needed where it is not installed

    form = _FORMATS[element]
    narrow = np.clip(values, -form.largest, form.largest).astype(getattr(ml_dtypes, form.ml_dtype))
    result: Array = narrow.astype(f32)
    return result


def rounded_by_table(values: Array, element: str) -> Array:
    """The same as :func:`rounded`, without ml_dtypes."""
    numbers = _numbers(element)
    magnitudes = np.abs(np.asarray(values, dtype=np.float64))
    above = np.searchsorted(numbers, magnitudes).clip(1, len(numbers) - 1)
    to_upper, to_lower = numbers[above] - magnitudes, magnitudes - numbers[above - 1]
    upper = (to_upper < to_lower) | ((to_upper == to_lower) & (above % 2 == 0))
    result: Array = np.copysign(np.where(upper, numbers[above], numbers[above - 1]), values).astype(f32)
    return result


def decoded(codes: Bytes, element: str) -> Array:
    """Bytes (or 4-bit codes) of a format as fp32: a sign bit, and below it the number's place in the table."""
    form = _FORMATS[element]
    sign_bit = 1 << (form.exponent_bits + form.mantissa_bits)
    magnitudes = _numbers(element)[np.minimum(codes & (sign_bit - 1), len(_numbers(element)) - 1)]
    return np.where(codes & sign_bit, -magnitudes, magnitudes).astype(f32)


@cache
def _numbers(element: str) -> NDArray[np.float64]:
    """The finite numbers of a format from 0 on, in the order of their codes."""
    form = _FORMATS[element]
    codes = np.arange(1 << (form.exponent_bits + form.mantissa_bits))
    exponents, mantissas = codes >> form.mantissa_bits, codes & ((1 << form.mantissa_bits) - 1)
    fractions = np.where(exponents == 0, 0.0, 1.0) + mantissas / 2.0**form.mantissa_bits
    numbers: NDArray[np.float64] = fractions * np.exp2(np.maximum(exponents, 1) - form.bias)
    kept: NDArray[np.float64] = numbers[numbers <= form.largest]
    return kept


def to_bf16(values: Array) -> Array:
    """fp32 to the nearest bf16 number, ties to even, as fp32; NaN is not supported."""
    bits = np.ascontiguousarray(values, dtype=f32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    result: Array = bits.view(f32)
    return result


def scaled(values: Array, scale: float | Array, element: str) -> Array:
    """Codes of values under a per-tensor scale."""
    with np.errstate(over="ignore"):
        return rounded(values * f32(scale), element)


def current_scale(largest: Array | np.float32, element: str) -> Array:
    """MAX / max(amax, 1e-10), each operation in fp32."""
    return np.asarray(f32(_FORMATS[element].largest) / np.maximum(largest, f32(1e-10)), dtype=f32)


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


def nvfp4(values: Array, *, height: int = 1, four_over_six: bool = False, noise: Noise | None = None) -> Blocks:
    """Quantize in blocks of (height, 16)."""
    rows, columns = values.shape
    grid = (rows // height, columns // 16)

    def cut(matrix: NDArray[_Number]) -> NDArray[_Number]:
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


def _elements(blocks: Array, scales: Array, decode: np.float32, noise: Noise | None) -> tuple[Array, Array]:
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.where(scales == 0, f32(0), f32(1) / (scales * decode)).astype(f32)
    elements = blocks * factor
    return (rounded(elements, "e2m1") if noise is None else _stochastic(elements, noise)) * scales, scales


def _stochastic(values: Array, noise: Noise) -> Array:
    """Up where the distance to the lower neighbour and centred noise of one step pass one half; in float64."""
    magnitudes = np.abs(values.astype(np.float64))
    step = np.exp2(np.floor(np.log2(np.maximum(magnitudes, 1.0))) - 1)
    low = np.floor(values / step) * step
    centred = (noise.astype(np.float64) + 0.5) / 65536
    up = (values - low) / step + centred > _HALF
    result: Array = np.clip(low + step * up, -6, 6).astype(f32)
    return result


def _error(products: Array, amax: np.float32, reach: np.float32, blocks: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        error: Array = np.square(products * amax / reach - blocks).sum(axis=1, keepdims=True)
    return error


def tiles_dequantized(values: Array, size: int = 128) -> Array:
    """What a weight stored in FP8 tiles stands for: code times factor, rounded to bf16."""
    codes, inverse = tiles(values, size)
    rows, columns = values.shape
    return to_bf16(codes * inverse.repeat(size, axis=0)[:rows].repeat(size, axis=1)[:, :columns])


def nvfp4_dequantized(values: Array) -> Array:
    """What a weight stored in NVFP4 stands for: element times both scales, rounded to bf16."""
    blocks = nvfp4(values)
    return to_bf16(blocks.products * blocks.tensor_scale)


def from_tiles(scales: Bytes, rows: int, blocks: int) -> Bytes:
    """Read (rows, blocks) block scales from tiles of 128x4, by the offset of each (cuBLAS: 1D block scaling)."""
    row, block = np.meshgrid(np.arange(rows), np.arange(blocks), indexing="ij")
    tile = (row // 128) * -(-blocks // 4) + block // 4
    found: Bytes = scales[tile * 512 + (row % 32) * 16 + (row % 128 // 32) * 4 + block % 4]
    return found


def nf4_codes(values: Array, block: int = 64) -> Bytes:
    """Place in :data:`NF4_VALUES` of the number nearest to each value over its block's largest magnitude."""
    blocks = values.reshape(-1, block)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    middles = np.convolve(NF4_VALUES, [0.5, 0.5], mode="valid")
    places = np.searchsorted(middles, blocks / np.maximum(largest, f32(1e-30)))
    codes: Bytes = places.astype(np.uint8).reshape(values.shape)
    return codes
