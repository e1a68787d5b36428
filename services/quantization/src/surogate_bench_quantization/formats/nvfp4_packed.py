"""The packed form of NVFP4: two 4-bit codes a byte, low nibble first, and block scales as E4M3 bytes."""

from functools import cache

import torch
from torch import Tensor

from surogate_bench_quantization.formats.elements import E4M3
from surogate_bench_quantization.formats.fp8 import decode_e4m3, encode
from surogate_bench_quantization.formats.nvfp4 import BLOCK, NVFP4Tensor

E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Value of each E2M1 code: one sign, two exponent and one mantissa bit."""


def pack(quantized: NVFP4Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Pack a quantized matrix.

    Args:
        quantized: With 1x16 or 16x16 blocks, (rows, columns).
        signs: (rows, columns), any float type: gives the sign of elements that were rounded to zero.

    Returns:
        Codes, uint8 (rows, columns / 2), the even column in the low nibble; and block scales as E4M3 bytes, in the
        shape they have in ``quantized``.
    """
    scales = _per_element(quantized.block_scales, quantized.products.shape)
    elements = (quantized.products.float().abs_() / scales).nan_to_num_(nan=0.0)  # 0 / 0 where the block scale is zero
    codes = _codes_of_doubled(signs.device)[(elements * 2).to(torch.int64)]
    codes += torch.signbit(signs).to(torch.uint8) << 3
    return codes[:, 0::2] | (codes[:, 1::2] << 4), encode(quantized.block_scales, E4M3)


def unpack_elements(codes: Tensor) -> Tensor:
    """Convert packed codes to element values.

    Args:
        codes: uint8 (rows, columns / 2).

    Returns:
        bf16 (rows, columns).
    """
    pairs = _pair_table(codes.device).index_select(0, codes.view(-1).to(torch.int32))
    return pairs.view(torch.bfloat16).view(codes.shape[0], -1)


def unpack_products(codes: Tensor, scale_codes: Tensor) -> Tensor:
    """Convert a packed matrix to element * block scale, which bf16 holds exactly.

    Args:
        codes: uint8 (rows, columns / 2).
        scale_codes: uint8 (rows, columns / 16), or (rows / 16, columns / 16) for 16x16 blocks.

    Returns:
        bf16 (rows, columns).
    """
    elements = unpack_elements(codes)
    rows, columns = elements.shape
    height = rows // scale_codes.shape[0]
    blocks = elements.view(scale_codes.shape[0], height, columns // BLOCK, BLOCK)
    blocks.mul_(decode_e4m3(scale_codes)[:, None, :, None])
    return elements


def _per_element(block_scales: Tensor, shape: torch.Size) -> Tensor:
    height = shape[0] // block_scales.shape[0]
    return block_scales.repeat_interleave(height, dim=0).repeat_interleave(BLOCK, dim=1)


@cache
def _codes_of_doubled(device: torch.device) -> Tensor:
    """Twice an element is one of 0 1 2 3 4 6 8 12, whose codes are 0 to 7; a graph's capture allows no new copy."""
    return torch.tensor([0, 1, 2, 3, 4, 0, 5, 0, 6, 0, 0, 0, 7], dtype=torch.uint8, device=device)


@cache
def _pair_table(device: torch.device) -> Tensor:
    """Both values of each byte as bf16, viewed as one int32: index_select of it is the fastest lookup on a CPU."""
    byte = torch.arange(256)
    values = torch.tensor(E2M1_VALUES, dtype=torch.bfloat16)
    pairs = torch.stack((values[byte & 0xF], values[byte >> 4]), dim=1)
    return pairs.contiguous().view(torch.int32).view(-1).to(device)
