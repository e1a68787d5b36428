"""Delayed scaling: the scale of a step comes from the largest magnitudes of the steps before.

Source: Transformer Engine's DelayedScaling recipe with ``amax_compute_algo="max"``.
"""

import torch
from torch import Tensor

from surogate_bench_quantization.formats.elements import E4M3

_FP32_MAX = torch.finfo(torch.float32).max


class DelayedScaling:
    """Scales of many tensors, one slot each, moved together once per optimizer step.

    A scale starts at 1. ``update`` appends each slot's amax, the maximum over the micro-batches since the last update,
    to a history of L steps and sets s = 448 * 2**-margin / max(history). A scale is kept where that maximum is zero or
    not finite, and limited to the largest fp32 number where it would overflow.

    Args:
        slots: Number of tensors.
        history_length: L, in optimizer steps.
        margin: Powers of two kept free.
        device: Where the state lives.
    """

    def __init__(self, *, slots: int, history_length: int, margin: int, device: torch.device) -> None:
        self._target = E4M3.max_value * 2.0**-margin
        self._history = torch.zeros(history_length, slots, device=device)
        self._position = torch.zeros((), dtype=torch.int64)
        self._amax = torch.zeros(slots, device=device)
        self._scale = torch.ones(slots, device=device)
        self._amax_slots = self._amax.unbind()
        self._scale_slots = self._scale.unbind()
        # Tensor cores' GEMM reads scales from addresses that are multiples of 16 bytes.
        self._inverse = torch.ones(slots, 4, device=device)
        self._inverse_slots = self._inverse[:, 0].unbind()
        self._scale_values: list[float] = self._scale.tolist()

    def scale(self, slot: int) -> float:
        """Scale that is in force until the next update, an fp32 number."""
        return self._scale_values[slot]

    def scale_on_device(self, slot: int) -> Tensor:
        """The same scale, 0-dim fp32 where the state lives."""
        return self._scale_slots[slot]

    def inverse_on_device(self, slot: int) -> Tensor:
        """What codes are multiplied by to get values: 1 / scale, 0-dim fp32 where the state lives."""
        return self._inverse_slots[slot]

    def record(self, slot: int, largest: Tensor) -> None:
        """Include the amax of one micro-batch (0-dim fp32) in the next update."""
        torch.maximum(self._amax_slots[slot], largest, out=self._amax_slots[slot])

    @property
    def amax(self) -> Tensor:
        """What was recorded since the last update: fp32 (slots,), not copied."""
        return self._amax

    def update(self) -> None:
        """Move the scales; call it once after every optimizer step."""
        position = int(self._position)
        self._history[position] = self._amax
        self._position.fill_((position + 1) % self._history.shape[0])
        self._amax.zero_()
        largest = self._history.amax(dim=0)
        moved = torch.full_like(largest, self._target).div_(largest).clamp_max_(_FP32_MAX)
        usable = (largest > 0) & largest.isfinite()
        self._scale.copy_(torch.where(usable, moved, self._scale))
        self._scales_moved()

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that a continuation needs; the tensors are not copied."""
        return {
            "amax_history": self._history,
            "amax_position": self._position,
            "amax": self._amax,
            "scale": self._scale,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load a state of the same number of slots and the same history length."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
        self._scales_moved()

    def _scales_moved(self) -> None:
        self._inverse.copy_(self._scale.reciprocal()[:, None])
        self._scale_values = self._scale.tolist()
