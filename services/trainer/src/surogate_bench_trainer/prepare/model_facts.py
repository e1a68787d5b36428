"""What the checks of a base model look at, gathered once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from surogate_bench.specs import RecipeSweep

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFacts:
    """A model's configuration and the sweep that is to use it."""

    sweep: RecipeSweep
    config: "PreTrainedConfig"
    served_on_cpu: bool
    """Whether vLLM's CPU build is what serves on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """A model's weights on disk, by their headers, compared with the architecture."""

    sweep: RecipeSweep
    config: "PreTrainedConfig"
    model: "PreTrainedModel"
    """The architecture on the meta device: shapes without data."""
    loading: dict[str, Any]
    """transformers' loading info: ``missing_keys``, ``unexpected_keys`` and ``mismatched_keys``."""
    names: tuple[str, ...]
    """Tensors that the checkpoint has."""
