"""What every checkpoint format offers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedLayers:
    """Weights of linear layers in a checkpoint format."""

    tensors: dict[str, Tensor]
    """Tensors by their names in the checkpoint."""
    relative_errors: dict[str, float] = field(default_factory=dict)
    """Layers whose values are not the stored ones: norm of the difference by norm of the stored weight."""


class CheckpointFormat(Protocol):
    """A format in which a checkpoint holds the weights of linear layers."""

    @property
    def label(self) -> str | None:
        """``quant_method`` and format; None where the weights are not quantized."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a server has to know or to have, a sentence each."""
        ...

    @property
    def output_multiple(self) -> int:
        """Outputs of all but the last of the layers that vLLM multiplies as one must be divisible by it."""
        ...

    @property
    def input_multiple(self) -> int:
        """Inputs of every layer must be divisible by it, or vLLM does not load the checkpoint."""
        ...

    def quantization_config(self, unquantized: Sequence[str]) -> dict[str, Any] | None:
        """Build ``quantization_config`` of ``config.json``.

        Args:
            unquantized: Names of modules whose weights stay in bf16; a name covers all that is inside it.
        """
        ...

    def convert(self, layers: Mapping[str, nn.Linear]) -> ExportedLayers:
        """Convert stored weights.

        Args:
            layers: By name in the model; those that a server multiplies as one, together.
        """
        ...
