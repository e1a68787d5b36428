"""NVFP4 products, emulated."""

import torch
from torch import Tensor, nn

from surogate_bench.recipes import Recipe
from surogate_bench_quantization.engines.emulated_products import scaled_product, scaled_rows_product
from surogate_bench_quantization.engines.last_input import LastInput, QuantizedInput
from surogate_bench_quantization.engines.nvfp4.session import (
    quantize_gradients,
    quantize_input,
    quantize_transposed_weight,
    quantize_weight,
)
from surogate_bench_quantization.engines.operands import nvfp4_operand
from surogate_bench_quantization.formats.nvfp4 import NVFP4Tensor


class EmulatedNVFP4Products(nn.Module):
    """Inputs in 1x16 blocks with 4/6, gradients in 1x16 blocks along out_features with stochastic rounding.

    Args:
        weight: bf16 (out_features, in_features).
        recipe: Its ``fp4_profile`` has the shape of the weight's blocks; square ones serve both products.
        generator: Source of the noise of stochastic rounding.
        last_input: Shared by the layers of a model.
        packed: Keep the weight's operands as 4-bit codes rather than bf16 values.
    """

    def __init__(
        self,
        weight: Tensor,
        recipe: Recipe,
        generator: torch.Generator,
        last_input: LastInput[QuantizedInput],
        *,
        packed: bool,
    ) -> None:
        super().__init__()
        self.weight = nvfp4_operand(quantize_weight(weight, recipe), packed=packed)
        transposed = quantize_transposed_weight(weight, recipe)
        self.weight_transposed = None if transposed is None else nvfp4_operand(transposed, packed=packed)
        self._outputs, self._inputs = weight.shape
        self._generator = generator
        self._last_input = last_input

    def fprop(self, inputs: Tensor, *, record: bool) -> Tensor:
        """Forward product Q(x) @ Q(W).T."""
        del record  # scales are the tensor's own
        products, scale = self._last_input.get(inputs, (), _quantized_input)
        product = scaled_product(products, self.weight.values().t(), self.weight.scale * scale)
        return product[:, : self._outputs].contiguous()

    def dgrad(self, gradients: Tensor) -> Tensor:
        """Backward product Q(g) @ Q(W.T).T."""
        quantized = quantize_gradients(gradients, self._generator)
        operand = self.weight if self.weight_transposed is None else self.weight_transposed
        values = operand.values() if self.weight_transposed is None else operand.values().t()
        product = scaled_product(quantized.products, values, operand.scale * quantized.tensor_scale)
        return product[:, : self._inputs].contiguous()

    @property
    def operand_nbytes(self) -> int:
        """Bytes of the cached operands, one or two."""
        return sum(buffer.nbytes for buffer in self.buffers())


def _quantized_input(inputs: Tensor) -> QuantizedInput:
    quantized = quantize_input(inputs)
    return QuantizedInput(quantized.products, quantized.tensor_scale)


class NVFP4Forward(nn.Module):
    """Forward product of NVFP4 inputs and an NVFP4 weight, every token quantized separately.

    In training a tensor is a micro-batch, with one fp32 scale. A server's batches hold whatever requests there are, so
    one scale would make an answer depend on them. For one token it is what :class:`EmulatedNVFP4Products` computes.

    Args:
        weight: bf16 (out_features, in_features).
        recipe: Its ``fp4_profile`` has the shape of the weight's blocks.
    """

    operand: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, recipe: Recipe) -> None:
        super().__init__()
        quantized = quantize_weight(weight, recipe)
        self.register_buffer("operand", quantized.products if weight.is_cuda else quantized.products.float())
        self.register_buffer("scale", quantized.tensor_scale)
        self._outputs = weight.shape[0]

    def multiply(self, quantized: NVFP4Tensor) -> Tensor:
        """Multiply what :func:`quantize_each_row` made of padded bf16 inputs; bf16 (tokens, out_features)."""
        product = scaled_rows_product(quantized.products, self.operand.t(), self.scale * quantized.tensor_scale)
        return product[:, : self._outputs]
