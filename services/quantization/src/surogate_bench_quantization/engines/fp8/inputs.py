"""Inputs under FP8: E4M3 with delayed scaling, quantized once for the layers that share one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

from torch import Tensor

from surogate_bench_quantization.engines.last_input import LastInput, QuantizedInput
from surogate_bench_quantization.formats.delayed_scaling import DelayedScaling
from surogate_bench_quantization.formats.elements import E4M3, ElementFormat
from surogate_bench_quantization.formats.fp8 import amax

Quantize = Callable[[Tensor, Tensor, ElementFormat], Tensor]
"""Makes codes from values, a 0-dim fp32 scale and the format."""


class InputScale(NamedTuple):
    """What a layer's inputs are quantized with."""

    value: Tensor
    """0-dim fp32: what values are multiplied by to get codes."""
    inverse: Tensor
    """0-dim fp32: what codes are multiplied by to get values."""

    @classmethod
    def of(cls, value: Tensor) -> Self:
        """Make the pair from the scale."""
        return cls(value, value.reciprocal())


@dataclass(frozen=True, slots=True)
class FP8Inputs:
    """The inputs of one layer."""

    scaling: DelayedScaling
    """The model's."""
    slot: int
    """This layer's slot in it."""
    last: LastInput[QuantizedInput]
    """Shared by the layers of a model."""

    def codes(self, inputs: Tensor, quantize: Quantize, *, record: bool) -> Tensor:
        """Quantize with the scale in force.

        Args:
            inputs: bf16 (..., in_features), contiguous.
            quantize: How codes are kept; the same for all layers of a model.
            record: Record the amax, for later scales.

        Returns:
            Codes (m, in_features), m the product of the leading dimensions.
        """
        quantized = self.last.get(
            inputs,
            (self.scaling.scale(self.slot),),
            lambda x: QuantizedInput(quantize(x.flatten(end_dim=-2), self.scale.value, E4M3), amax(x)),
        )
        if record:
            self.scaling.record(self.slot, quantized.measure)
        return quantized.values

    @property
    def scale(self) -> InputScale:
        """The scale in force."""
        return InputScale(self.scaling.scale_on_device(self.slot), self.scaling.inverse_on_device(self.slot))
