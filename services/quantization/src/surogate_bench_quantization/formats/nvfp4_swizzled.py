"""NVFP4 as FP4 tensor cores take it: packed codes, and block scales in tiles of 128x4.

Scales of 128 rows and 4 blocks are stored together, as one tile of 512 bytes, and the tiles row by row. Within a tile
the scale of row r and block b is at (r % 32) * 16 + (r // 32) * 4 + b. Dimensions that tiles do not divide are padded
with zero scales, so that what is beyond the matrix counts nothing.

Source: cuBLAS's documentation, "1D Block Scaling Factors Layout"; torch calls it SWIZZLE_32_4_4.
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import pad

from surogate_bench_quantization.formats.nvfp4 import NVFP4Tensor
from surogate_bench_quantization.formats.nvfp4_packed import pack

_TILE_ROWS, _TILE_BLOCKS = 128, 4
_LANES = 32
_MULTIPLE = 16
"""What rows, and the bytes of a row, must be a multiple of."""


class SwizzledNVFP4(NamedTuple):
    """An NVFP4 matrix of shape (rows, columns), ready to be multiplied along its columns."""

    codes: Tensor
    """uint8 (rows, columns / 2), the even column in the low nibble; zero codes fill rows up to a multiple of 16, and
    columns up to one of 32."""
    block_scales: Tensor
    """E4M3 bytes in tiles: uint8 (number of tiles * 512)."""
    tensor_scale: Tensor
    """0-dim fp32."""


def swizzled(quantized: NVFP4Tensor) -> SwizzledNVFP4:
    """Pack a matrix of 1x16 or 16x16 blocks that has one tensor scale."""
    # What products have lost is the sign of elements that are zero.
    codes, scales = pack(quantized, quantized.products)
    rows, width = codes.shape
    scales = scales.repeat_interleave(rows // scales.shape[0], dim=0)
    padded = pad(codes, (0, -width % _MULTIPLE, 0, -rows % _MULTIPLE))
    return SwizzledNVFP4(padded, swizzle(scales), quantized.tensor_scale)


def swizzle(scales: Tensor) -> Tensor:
    """Arrange block scales in tiles.

    Args:
        scales: uint8 (rows, blocks).

    Returns:
        uint8 (ceil(rows / 128) * ceil(blocks / 4) * 512).
    """
    rows, blocks = scales.shape
    padded = pad(scales, (0, -blocks % _TILE_BLOCKS, 0, -rows % _TILE_ROWS))
    tiles = padded.reshape(-1, _TILE_ROWS // _LANES, _LANES, padded.shape[1] // _TILE_BLOCKS, _TILE_BLOCKS)
    return tiles.permute(0, 3, 2, 1, 4).flatten()


def transposed(quantized: NVFP4Tensor) -> NVFP4Tensor:
    """Transpose a matrix of 16x16 blocks, which are those of its transpose too."""
    return NVFP4Tensor(quantized.products.t().contiguous(), quantized.block_scales.t(), quantized.tensor_scale)
