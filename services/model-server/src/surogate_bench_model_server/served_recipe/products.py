"""Products of one of vLLM's linear layers, which may be several projections fused: each keeps scales of its own."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor
from typing_extensions import override

from surogate_bench.recipes import Recipe
from surogate_bench_model_server.served_recipe.input_scales import AdapterScales, InputScales
from surogate_bench_quantization.engines.forward import FP8_FORWARDS, FP8Forward, NVFP4Forward
from surogate_bench_quantization.formats.elements import E4M3
from surogate_bench_quantization.formats.nvfp4 import padded, quantize_each_row


class FusedProducts(Protocol):
    """Forward products with the weights of fused projections."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Multiply bf16 (tokens, in_features), contiguous: bf16 (tokens, sum of out_features)."""
        ...


class FusedFP8(FusedProducts):
    """FP8 products, with the input scales of each token's adapter.

    Args:
        weights: bf16 (out_features, in_features) of each projection, by module path.
        engine: Name of the engine.
        scales: Input scales of this process.
    """

    def __init__(self, weights: Mapping[str, Tensor], engine: str, scales: InputScales) -> None:
        self._projections = tuple(weights)
        self._forwards: list[FP8Forward] = [FP8_FORWARDS[engine](weight) for weight in weights.values()]
        self._outputs = sum(weight.shape[0] for weight in weights.values())
        self._scales = scales
        scales.projections.extend(self._projections)
        scales.device = next(iter(weights.values())).device

    @override
    def __call__(self, inputs: Tensor) -> Tensor:
        groups = self._scales.groups(inputs.shape[0])
        if groups[0].rows is None:
            return self._multiply(inputs, groups[0].scales)
        outputs = inputs.new_zeros(inputs.shape[0], self._outputs)
        for group in groups:
            rows = group.rows
            assert rows is not None  # noqa: S101 - only a single group has no rows
            outputs.index_copy_(0, rows, self._multiply(inputs.index_select(0, rows), group.scales))
        return outputs

    def _multiply(self, inputs: Tensor, adapter: AdapterScales) -> Tensor:
        parts: list[Tensor] = []
        codes, number = inputs, 0.0
        for each, forward in zip(adapter.scales_for(inputs, self._projections), self._forwards, strict=True):
            if not parts or each.number != number:
                codes, number = forward.quantize(inputs, each.scale.value, E4M3), each.number
            parts.append(forward.multiply(codes, each.scale))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class FusedNVFP4(FusedProducts):
    """NVFP4 products, every token quantized separately.

    Args:
        weights: bf16 (out_features, in_features) of each projection.
        recipe: Has the shape of the weights' blocks.
    """

    def __init__(self, weights: Mapping[str, Tensor], recipe: Recipe) -> None:
        self._forwards = [NVFP4Forward(weight, recipe) for weight in weights.values()]

    @override
    def __call__(self, inputs: Tensor) -> Tensor:
        quantized = quantize_each_row(padded(inputs))
        parts = [forward.multiply(quantized) for forward in self._forwards]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
