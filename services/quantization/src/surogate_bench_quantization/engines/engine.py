"""Interfaces of engines and of their sessions."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

from surogate_bench.recipes import Recipe


class EngineSession(Protocol):
    """One engine applied to one model under one recipe; holds the state that changes during training."""

    def replace(self, linear: nn.Linear) -> nn.Linear:
        """Build the layer that replaces a frozen bf16 linear layer.

        Layers are given in the order of the model. The result is a ``nn.Linear``, since PEFT adapts only those.
        """
        ...

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The session's random generators, from which layers draw."""
        ...

    @property
    def maxima(self) -> Sequence[Tensor]:
        """What the session has recorded in this step as elementwise maxima over micro-batches, not copied.

        Processes that share the micro-batches of a step replace them by the maxima over all processes before the end
        of the step; then all of them have the same scales, those of one process that computes every micro-batch.
        """
        ...

    def end_of_optimizer_step(self) -> None:
        """Update the state that changes once per optimizer step."""
        ...

    def input_scales(self) -> Sequence[Tensor]:
        """Copy the scales of delayed scaling that are in force, one (0-dim fp32) for each replaced layer, in order.

        Empty where inputs have none.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return a flat copy of the state that a checkpoint needs."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned; raises what :func:`check_entries` does."""
        ...


class Engine(Protocol):
    """A way of computing products with frozen weights.

    What it implements and the hardware that it needs are in :mod:`surogate_bench.recipes.precisions`.
    """

    @property
    def name(self) -> str:
        """Name that is recorded with every result."""
        ...

    def start(self, recipe: Recipe, *, layers: int, device: torch.device, seed: int) -> EngineSession:
        """Start a session for a model.

        Args:
            recipe: One that the engine implements.
            layers: Linear layers that will be replaced.
            device: Device of the model.
            seed: For engines that draw random numbers.
        """
        ...


def check_entries(state: dict[str, Tensor], *, expected: dict[str, Tensor]) -> None:
    """Check that a state was written under the same recipe and model.

    Raises:
        KeyError: it has other entries.
        RuntimeError: an entry has another shape.
    """
    if state.keys() != expected.keys():
        raise KeyError(f"quantization state: expected {sorted(expected)}, found {sorted(state)}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise RuntimeError(f"{name}: expected shape {tuple(tensor.shape)}, found {tuple(state[name].shape)}")


class StatelessSession(EngineSession):
    """Base of sessions without state."""

    generators: Sequence[torch.Generator] = ()
    maxima: Sequence[Tensor] = ()

    @override
    def input_scales(self) -> Sequence[Tensor]:
        return ()

    @override
    def end_of_optimizer_step(self) -> None:
        return

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return {}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        check_entries(state, expected={})
