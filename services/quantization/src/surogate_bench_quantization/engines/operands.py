"""Weights made ready for emulated products: code values that bf16 holds exactly, and one fp32 factor.

The frozen weight is quantized once. With a bf16 storage, the code values are kept as bf16; with a quantized storage
they are kept packed and expanded for each product, so that no 2-byte copy of the weight survives.

Every projection has a scale of its own. Surogate fuses q, k and v, and gate and up, into one weight each with one
scale, so its codes differ slightly.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

from surogate_bench_quantization.formats.elements import E4M3
from surogate_bench_quantization.formats.fp8 import decode_e4m3, quantize_current
from surogate_bench_quantization.formats.nvfp4 import NVFP4Tensor
from surogate_bench_quantization.formats.nvfp4_packed import pack, unpack_products


class Operand(nn.Module):
    """One quantized weight operand, which represents ``values() * scale``."""

    scale: Tensor
    """0-dim fp32."""

    @abstractmethod
    def values(self) -> Tensor:
        """Code values as bf16, shape of the weight."""

    @property
    def nbytes(self) -> int:
        """Bytes kept between products."""
        return sum(buffer.nbytes for buffer in self.buffers())


class ExpandedOperand(Operand):
    """Code values kept as bf16: 2 bytes per parameter, and no conversion per product."""

    codes: Tensor

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    @override
    def values(self) -> Tensor:
        return self.codes


class E4M3Operand(Operand):
    """Per-tensor E4M3, kept as bytes: 1 byte per parameter."""

    codes: Tensor

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes.to(torch.float8_e4m3fn).view(torch.uint8))
        self.register_buffer("scale", scale)

    @override
    def values(self) -> Tensor:
        return decode_e4m3(self.codes)


class NVFP4Operand(Operand):
    """NVFP4 kept packed: about 0.5 bytes per parameter, 0.5625 with 1x16 blocks."""

    codes: Tensor
    block_scales: Tensor

    def __init__(self, quantized: NVFP4Tensor) -> None:
        super().__init__()
        codes, block_scales = pack(quantized, quantized.products)
        self.register_buffer("codes", codes)
        self.register_buffer("block_scales", block_scales)
        self.register_buffer("scale", quantized.tensor_scale)

    @override
    def values(self) -> Tensor:
        return unpack_products(self.codes, self.block_scales)


def fp8_operand(weight: Tensor, *, packed: bool) -> Operand:
    """Quantize a weight per tensor to E4M3 with current scaling; its transpose is the same operand transposed.

    Args:
        weight: bf16 (out_features, in_features).
        packed: Keep bytes rather than bf16 values.
    """
    codes, scale = quantize_current(weight, E4M3)
    return (E4M3Operand if packed else ExpandedOperand)(codes, scale.reciprocal())


def nvfp4_operand(quantized: NVFP4Tensor, *, packed: bool) -> Operand:
    """Keep an NVFP4 weight as an operand.

    Args:
        quantized: The weight.
        packed: Keep 4-bit codes rather than bf16 values.
    """
    if packed:
        return NVFP4Operand(quantized)
    return ExpandedOperand(quantized.products, quantized.tensor_scale)
