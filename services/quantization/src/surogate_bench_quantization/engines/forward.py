"""Forward products for serving: the operands of a weight, made once, and the arithmetic of training.

A recipe with bf16 products is served with its stored weight expanded to bf16, by any GEMM. The others have products of
their own here; what they compute for one token is what a training step computes for it.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from surogate_bench.recipes import Recipe, WeightStorage
from surogate_bench.recipes.precisions import EMULATED, TORCH, TRANSFORMER_ENGINE
from surogate_bench_quantization.engines.fp8.emulated import EmulatedFP8Forward
from surogate_bench_quantization.engines.fp8.inputs import InputScale
from surogate_bench_quantization.engines.fp8.tensor_cores import TensorCoreFP8Forward
from surogate_bench_quantization.engines.nvfp4.emulated import NVFP4Forward
from surogate_bench_quantization.formats.elements import ElementFormat
from surogate_bench_quantization.storage import freeze
from surogate_bench_quantization.storage.nf4 import nf4_dequantized

__all__ = ["FP8_FORWARDS", "FP8Forward", "InputScale", "NVFP4Forward", "stored_values"]


class FP8Forward(Protocol):
    """Forward product of FP8 inputs with one FP8 weight, under an input scale that the caller has."""

    def quantize(self, values: Tensor, scale: Tensor, element: ElementFormat) -> Tensor:
        """Make codes from bf16 (tokens, in_features) and a 0-dim fp32 scale, as ``multiply`` takes them."""
        ...

    def multiply(self, codes: Tensor, scale: InputScale) -> Tensor:
        """Multiply codes (tokens, in_features), made with ``scale``, with the weight: bf16 (tokens, out_features)."""
        ...


FP8_FORWARDS: Mapping[str, Callable[[Tensor], FP8Forward]] = {
    EMULATED: EmulatedFP8Forward,
    TORCH: TensorCoreFP8Forward,
    TRANSFORMER_ENGINE: TensorCoreFP8Forward,  # the same codes: only its gradients are scaled otherwise
}
"""Makers of the forward product of a bf16 weight (out_features, in_features), by engine."""


def stored_values(weight: Tensor, recipe: Recipe) -> Tensor:
    """Put a weight into a recipe's storage and expand it again.

    Args:
        weight: bf16 (out_features, in_features) of one projection: scales belong to it alone.
        recipe: Its ``weight_storage`` counts.

    Returns:
        bf16 (out_features, in_features): what the recipe's products start from.
    """
    if recipe.weight_storage is WeightStorage.NF4:
        return nf4_dequantized(weight)
    return freeze(weight, recipe.weight_storage).dequantize()
