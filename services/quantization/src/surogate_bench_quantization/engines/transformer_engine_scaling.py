"""Delayed scaling in Transformer Engine's own tensors, whose elements its quantizers point to.

Row 0 of a history holds the largest magnitudes since the last update, the other rows those of the steps before. Columns
are tensors of a layer: forward input, weight and output; backward the gradient of the output and that of the input.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from surogate_bench_quantization.formats.elements import E4M3
from surogate_bench_quantization.formats.fp8 import amax, current_scale

INPUT, WEIGHT = 0, 1
"""Columns of the forward direction (``FP8FwdTensors`` of the library)."""
_FP32_MAX = torch.finfo(torch.float32).max


@dataclass(frozen=True, slots=True)
class DelayedState:
    """History and scales of one direction of a layer; both are changed in place."""

    history: Tensor
    """fp32 (steps, tensors)."""
    scale: Tensor
    """fp32 (tensors)."""

    def update(self, largest: float, *, margin: int) -> None:
        """Move the scales at the end of an optimizer step.

        Args:
            largest: The format's largest number.
            margin: Powers of two kept free.
        """
        found = self.history.amax(dim=0)
        # Also drops the oldest step: it was moved to row 0.
        self.history.copy_(self.history.roll(-1, dims=0))
        self.history[0].zero_()
        moved = torch.full_like(found, largest).div_(found).div_(2.0**margin).clamp_max_(_FP32_MAX)
        usable = (found > 0) & found.isfinite()
        self.scale.copy_(torch.where(usable, moved, self.scale))


def start_at_weight(state: DelayedState, weight: Tensor) -> None:
    """Scale a frozen weight by its own largest magnitude.

    Under delayed scaling its scale would be 1 until the first update, which rounds most weights to few numbers.

    Args:
        state: Of the forward direction.
        weight: bf16 (out_features, in_features).
    """
    state.scale[WEIGHT] = current_scale(amax(weight), E4M3)
