"""FP8 products, emulated."""

from torch import Tensor, nn

from surogate_bench_quantization.engines.emulated_products import scaled_product
from surogate_bench_quantization.engines.fp8.inputs import FP8Inputs, InputScale
from surogate_bench_quantization.engines.operands import fp8_operand
from surogate_bench_quantization.formats.elements import E5M2
from surogate_bench_quantization.formats.fp8 import quantize_current, quantize_scaled


class EmulatedFP8Forward(nn.Module):
    """Forward product of E4M3 inputs and an E4M3 weight with current scaling.

    Args:
        weight: bf16 (out_features, in_features).
        packed: Keep the weight's operand as bytes rather than bf16 values.
    """

    quantize = staticmethod(quantize_scaled)

    def __init__(self, weight: Tensor, *, packed: bool = False) -> None:
        super().__init__()
        self.weight = fp8_operand(weight, packed=packed)

    def multiply(self, codes: Tensor, scale: InputScale) -> Tensor:
        """Multiply codes (m, in_features), made with ``scale``, with the weight: bf16 (m, out_features)."""
        return scaled_product(codes, self.weight.values().t(), self.weight.scale / scale.value)


class EmulatedFP8Products(EmulatedFP8Forward):
    """E4M3 inputs with delayed scaling, E4M3 weight, E5M2 gradients with current scaling.

    Args:
        weight: bf16 (out_features, in_features).
        inputs: The layer's.
        packed: Keep the weight's operand as bytes rather than bf16 values.
    """

    def __init__(self, weight: Tensor, inputs: FP8Inputs, *, packed: bool) -> None:
        super().__init__(weight, packed=packed)
        self._inputs = inputs

    def fprop(self, inputs: Tensor, *, record: bool) -> Tensor:
        """Forward product Q(x) @ Q(W).T; ``record`` the input's amax for later scales."""
        return self.multiply(self._inputs.codes(inputs, self.quantize, record=record), self._inputs.scale)

    def dgrad(self, gradients: Tensor) -> Tensor:
        """Backward product Q(g) @ Q(W)."""
        codes, scale = quantize_current(gradients, E5M2)
        return scaled_product(codes, self.weight.values(), self.weight.scale / scale)

    @property
    def operand_nbytes(self) -> int:
        """Bytes of the cached operand."""
        return self.weight.nbytes
