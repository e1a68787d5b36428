"""NVFP4 products, emulated."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from surogate_bench.recipes import Recipe, WeightStorage
from surogate_bench_quantization.engines.emulated_products import scaled_product, scaled_rows_product
from surogate_bench_quantization.engines.engine import EngineSession, check_entries
from surogate_bench_quantization.engines.last_input import LastInput, QuantizedInput
from surogate_bench_quantization.engines.operands import Operand, nvfp4_operand
from surogate_bench_quantization.formats.elements import uniform_noise
from surogate_bench_quantization.formats.nvfp4 import NVFP4Tensor, quantize_rows, quantize_squares
from surogate_bench_quantization.linear import QuantizedLinear
from surogate_bench_quantization.storage import freeze

_GENERATOR = "stochastic_rounding.generator"


class NVFP4Products(nn.Module):
    """Inputs in 1x16 blocks with 4/6, gradients in 1x16 blocks along out_features with stochastic rounding.

    Args:
        weight: Operand of fprop, (out_features, in_features).
        weight_transposed: Operand of dgrad, (in_features, out_features); None if ``weight`` serves both, which takes
            square blocks.
        generator: Source of the noise of stochastic rounding.
        last_input: Shared by the layers of a model.
    """

    def __init__(
        self, weight: Operand, weight_transposed: Operand | None, generator: torch.Generator, last_input: LastInput
    ) -> None:
        super().__init__()
        self.weight = weight
        self.weight_transposed = weight_transposed
        self._generator = generator
        self._last_input = last_input

    def fprop(self, inputs: Tensor, *, record: bool) -> Tensor:
        """Forward product Q(x) @ Q(W).T."""
        del record  # scales are the tensor's own
        products, scale = self._last_input.get(inputs, (), _quantize_nvfp4_input)
        return scaled_product(products, self.weight.values().t(), self.weight.scale * scale)

    def dgrad(self, gradients: Tensor) -> Tensor:
        """Backward product Q(g) @ Q(W.T).T."""
        quantized = quantize_rows(gradients, four_over_six=False, noise=uniform_noise(gradients, self._generator))
        if self.weight_transposed is None:
            return scaled_product(quantized.products, self.weight.values(), self.weight.scale * quantized.tensor_scale)
        operand = self.weight_transposed
        return scaled_product(quantized.products, operand.values().t(), operand.scale * quantized.tensor_scale)

    @property
    def operand_nbytes(self) -> int:
        """Bytes of the cached operands, one or two."""
        return sum(buffer.nbytes for buffer in self.buffers())


def _quantize_nvfp4_input(inputs: Tensor) -> QuantizedInput:
    quantized = quantize_rows(inputs.flatten(end_dim=-2), four_over_six=True)
    return QuantizedInput(quantized.products, quantized.tensor_scale)


def forward_operand(weight: Tensor, recipe: Recipe, *, packed: bool) -> Operand:
    """Quantize a weight for the forward product.

    Args:
        weight: bf16 (out_features, in_features).
        recipe: Its ``fp4_profile`` has the shape of the blocks.
        packed: Keep 4-bit codes rather than bf16 values.
    """
    quantize = quantize_squares if recipe.fp4_profile == "paper" else quantize_rows
    return nvfp4_operand(quantize(weight, four_over_six=True), packed=packed)


class NVFP4Forward(nn.Module):
    """Forward product of NVFP4 inputs and an NVFP4 weight, every token quantized by itself.

    In training a tensor is a micro-batch, with one fp32 scale. A server's batches hold whatever requests there are, so
    one scale would make an answer depend on them. For one token it is what :class:`NVFP4Products` computes.

    Args:
        weight: bf16 (out_features, in_features).
        recipe: Its ``fp4_profile`` has the shape of the weight's blocks.
    """

    operand: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, recipe: Recipe) -> None:
        super().__init__()
        quantized = forward_operand(weight, recipe, packed=False)
        values = quantized.values()
        self.register_buffer("operand", values if values.is_cuda else values.float())
        self.register_buffer("scale", quantized.scale)

    def multiply(self, quantized: NVFP4Tensor) -> Tensor:
        """Multiply what :func:`quantize_each_row` made of bf16 (tokens, in_features); bf16 (tokens, out_features)."""
        return scaled_rows_product(quantized.products, self.operand.t(), self.scale * quantized.tensor_scale)


class NVFP4Session(EngineSession):
    """Holds the generator of one model's stochastic rounding."""

    def __init__(self, recipe: Recipe, *, device: torch.device, seed: int) -> None:
        self._recipe = recipe
        self._last_input = LastInput()
        self._generator = torch.Generator(device).manual_seed(seed)

    @override
    def replace(self, linear: nn.Linear) -> nn.Linear:
        storage = freeze(linear.weight, self._recipe.weight_storage)
        operands = self._operands(storage.dequantize())
        return QuantizedLinear(linear, storage, NVFP4Products(*operands, self._generator, self._last_input))

    @property
    @override
    def generators(self) -> Sequence[torch.Generator]:
        return (self._generator,)

    @property
    @override
    def maxima(self) -> Sequence[Tensor]:
        return ()  # the scales of a tensor are its own, and a micro-batch is computed by one process

    @override
    def end_of_optimizer_step(self) -> None:
        self._last_input.forget()

    @override
    def input_scales(self) -> Sequence[Tensor]:
        return ()

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return {_GENERATOR: self._generator.get_state()}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        check_entries(state, expected=self.state_dict())
        self._generator.set_state(state[_GENERATOR])

    def _operands(self, weight: Tensor) -> tuple[Operand, Operand | None]:
        """Operands of fprop and, if it needs its own, dgrad for a bf16 weight (out_features, in_features)."""
        packed = self._recipe.weight_storage is not WeightStorage.BF16
        forward = forward_operand(weight, self._recipe, packed=packed)
        if self._recipe.fp4_profile == "paper":
            return forward, None
        return forward, nvfp4_operand(quantize_rows(weight.t().contiguous(), four_over_six=False), packed=packed)
