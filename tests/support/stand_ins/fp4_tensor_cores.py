"""Stands in for torch's GEMM of FP4 numbers on a GPU: checks the operands as torch does, and multiplies what they say.

The conditions are those of torch 2.13's ``_scaled_mm_v2`` on CUDA. What operands stand for is read byte by byte, by
the published formula of the layout of scales; the codes times their block scales are then multiplied as the emulated
engine multiplies them, so that equal operands give equal bits.
"""

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import ScalingType, SwizzleType

from surogate_bench_quantization.engines.emulated_products import scaled_product

SCALING = [ScalingType.BlockWise1x16, ScalingType.TensorWise]
SWIZZLE = [SwizzleType.SWIZZLE_32_4_4, SwizzleType.NO_SWIZZLE]


def scaled_mm(
    left: Tensor,
    right: Tensor,
    left_scales: list[Tensor],
    left_scaling: list[ScalingType],
    right_scales: list[Tensor],
    right_scaling: list[ScalingType],
    *,
    swizzle_a: list[SwizzleType],
    swizzle_b: list[SwizzleType],
    output_dtype: torch.dtype,
) -> Tensor:
    """Multiply (m, k) packed along k with (k, n) packed along k, both contiguous along it."""
    assert left_scaling == right_scaling == SCALING
    assert swizzle_a == swizzle_b == SWIZZLE
    assert left.is_contiguous()
    assert right.t().is_contiguous()
    assert left.shape[1] == right.shape[0]
    assert right.shape[1] % 16 == 0
    assert left.shape[1] % 16 == 0, "rows of 16 bytes"
    scale = left_scales[1] * right_scales[1]
    assert scale.numel() == 1
    assert scale.dtype == torch.float32
    product = scaled_product(values(left, left_scales[0]), values(right.t(), right_scales[0]).t(), scale)
    assert product.dtype == output_dtype
    return product


def values(codes: Tensor, scales: Tensor) -> Tensor:
    """Element times block scale of float4 (rows, k / 2): bf16 (rows, k)."""
    assert codes.dtype == torch.float4_e2m1fn_x2
    assert scales.dtype == torch.float8_e4m3fn
    rows, columns = codes.shape[0], codes.shape[1] * 2
    assert scales.numel() == -(-rows // 128) * 128 * (-(-columns // 64) * 4)
    of_blocks = unswizzled(scales.view(torch.uint8).numpy(), rows, columns // 16)
    decoded = of_blocks.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    packed = codes.view(torch.uint8).numpy()
    nibbles = np.stack((packed & 15, packed >> 4), axis=-1).reshape(rows, columns)
    elements = nibbles.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return torch.from_numpy(elements * decoded.repeat(16, axis=1)).to(torch.bfloat16)


def unswizzled(stored: NDArray[np.uint8], rows: int, blocks: int) -> NDArray[np.uint8]:
    """Read scales one by one: tile (row // 128, block // 4), and within it the offset that cuBLAS documents."""
    found = np.empty((rows, blocks), dtype=np.uint8)
    tiles_in_a_row = (blocks + 3) // 4
    for row in range(rows):
        for block in range(blocks):
            outer, inner = row % 128, block % 4
            tile = (row // 128) * tiles_in_a_row + block // 4
            found[row, block] = stored[tile * 512 + (outer % 32) * 16 + (outer // 32) * 4 + inner]
    return found
