"""NVFP4 products on FP4 tensor cores, through torch's scaled GEMM. Not yet run on such hardware."""

import torch
from torch import Tensor, nn
from torch.nn.functional import ScalingType, SwizzleType, scaled_mm

from surogate_bench.recipes import Recipe
from surogate_bench_quantization.engines.last_input import LastInput
from surogate_bench_quantization.engines.nvfp4.session import (
    quantize_gradients,
    quantize_input,
    quantize_transposed_weight,
    quantize_weight,
)
from surogate_bench_quantization.formats.nvfp4 import NVFP4Tensor
from surogate_bench_quantization.formats.nvfp4_swizzled import SwizzledNVFP4, swizzled, transposed

_SCALING = [ScalingType.BlockWise1x16, ScalingType.TensorWise]
_SWIZZLE = [SwizzleType.SWIZZLE_32_4_4, SwizzleType.NO_SWIZZLE]


class SwizzledOperand(nn.Module):
    """One weight operand, (n, k): 0.5625 bytes per parameter, as bytes since PEFT casts adapters to a base's dtype."""

    codes: Tensor
    block_scales: Tensor
    tensor_scale: Tensor

    def __init__(self, quantized: NVFP4Tensor) -> None:
        super().__init__()
        for name, tensor in swizzled(quantized)._asdict().items():
            self.register_buffer(name, tensor)

    def multiply(self, left: SwizzledNVFP4) -> Tensor:
        """Multiply (m, k) with the transpose of the operand: bf16 (m, n), m with the rows that fill it up."""
        product: Tensor = scaled_mm(
            left.codes.view(torch.float4_e2m1fn_x2),
            self.codes.view(torch.float4_e2m1fn_x2).t(),
            [left.block_scales.view(torch.float8_e4m3fn), left.tensor_scale],
            _SCALING,
            [self.block_scales.view(torch.float8_e4m3fn), self.tensor_scale],
            _SCALING,
            swizzle_a=_SWIZZLE,
            swizzle_b=_SWIZZLE,
            output_dtype=torch.bfloat16,
        )
        return product


class TensorCoreNVFP4Products(nn.Module):
    """The same codes and scales as :class:`EmulatedNVFP4Products`, multiplied as FP4 numbers; only sums differ.

    Tensor cores contract both operands along their contiguous dimension, so the backward product needs the weight
    transposed: the two take 1.125 bytes per parameter, whatever the storage.

    Args:
        weight: bf16 (out_features, in_features).
        recipe: Its ``fp4_profile`` has the shape of the weight's blocks.
        generator: Source of the noise of stochastic rounding.
        last_input: Shared by the layers of a model.
        packed: Without effect: operands are always kept as 4-bit codes.
    """

    def __init__(
        self,
        weight: Tensor,
        recipe: Recipe,
        generator: torch.Generator,
        last_input: LastInput[SwizzledNVFP4],
        *,
        packed: bool,
    ) -> None:
        super().__init__()
        del packed
        forward = quantize_weight(weight, recipe)
        backward = quantize_transposed_weight(weight, recipe)
        self.weight = SwizzledOperand(forward)
        self.weight_transposed = SwizzledOperand(transposed(forward) if backward is None else backward)
        self._outputs, self._inputs = weight.shape
        self._generator = generator
        self._last_input = last_input

    def fprop(self, inputs: Tensor, *, record: bool) -> Tensor:
        """Forward product Q(x) @ Q(W).T."""
        del record  # scales are the tensor's own
        quantized = self._last_input.get(inputs, (), lambda x: swizzled(quantize_input(x)))
        return self.weight.multiply(quantized)[: inputs.numel() // inputs.shape[-1], : self._outputs].contiguous()

    def dgrad(self, gradients: Tensor) -> Tensor:
        """Backward product Q(g) @ Q(W.T).T."""
        quantized = swizzled(quantize_gradients(gradients, self._generator))
        return self.weight_transposed.multiply(quantized)[: gradients.shape[0], : self._inputs].contiguous()

    @property
    def operand_nbytes(self) -> int:
        """Bytes of the two operands."""
        return sum(buffer.nbytes for buffer in self.buffers())
