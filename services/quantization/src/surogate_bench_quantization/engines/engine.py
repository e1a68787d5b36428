"""What every engine offers."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from surogate_bench.recipes import Recipe


class EngineSession(Protocol):
    """One engine at work on one model under one recipe; holds what changes while training."""

    def replace(self, linear: nn.Linear) -> nn.Linear:
        """Build the layer that takes the place of a frozen bf16 linear layer.

        Layers are given in the order of the model. The result is a ``nn.Linear``, since PEFT adapts only those.
        """
        ...

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """Random generators of its own that layers draw from."""
        ...

    def end_of_optimizer_step(self) -> None:
        """Move what moves once per optimizer step."""
        ...

    def input_scales(self) -> Sequence[Tensor]:
        """Copy the scales of delayed scaling that are in force, one (0-dim fp32) for each replaced layer, in order.

        Empty where inputs have none.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Flat copy of the state that a checkpoint needs."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned; see :func:`check_entries` for what it raises."""
        ...


class Engine(Protocol):
    """A way of computing products with frozen weights.

    What it implements and the hardware that it needs are in :mod:`surogate_bench.recipes.precisions`.
    """

    @property
    def name(self) -> str:
        """What is written beside every result."""
        ...

    def start(self, recipe: Recipe, *, layers: int, device: torch.device, seed: int) -> EngineSession:
        """Begin work on a model with so many layers to replace.

        Args:
            recipe: One that the engine implements.
            layers: Linear layers that will be replaced.
            device: Where the model is.
            seed: For engines that draw random numbers.
        """
        ...


def check_entries(state: dict[str, Tensor], *, expected: dict[str, Tensor]) -> None:
    """Make sure that a state was written under the same recipe and model.

    Raises:
        KeyError: it has other entries.
        RuntimeError: an entry has another shape.
    """
    if state.keys() != expected.keys():
        raise KeyError(f"quantization state: expected {sorted(expected)}, found {sorted(state)}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise RuntimeError(f"{name}: expected shape {tuple(tensor.shape)}, found {tuple(state[name].shape)}")


class StatelessSession:
    """Base of sessions in which nothing changes while training."""

    generators: Sequence[torch.Generator] = ()

    def input_scales(self) -> Sequence[Tensor]:
        """Return nothing: inputs stay as they are."""
        return ()

    def end_of_optimizer_step(self) -> None:
        """Nothing moves."""

    def state_dict(self) -> dict[str, Tensor]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Accept the empty state only."""
        check_entries(state, expected={})
