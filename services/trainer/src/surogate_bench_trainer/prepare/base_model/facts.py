"""Inputs of the checks of a base model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from surogate_bench.specs import RecipeSweep

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFacts:
    """A model's configuration, and the sweep that uses the model."""

    sweep: RecipeSweep
    config: "PreTrainedConfig"
    served_on_cpu: bool
    """Whether this machine serves with vLLM's CPU build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """A checkpoint's tensors by its headers, and their comparison with the architecture."""

    sweep: RecipeSweep
    config: "PreTrainedConfig"
    model: "PreTrainedModel"
    """The architecture on the meta device: shapes without data."""
    loading: dict[str, Any]
    """transformers' loading info: ``missing_keys``, ``unexpected_keys`` and ``mismatched_keys``."""
    types: Mapping[str, str]
    """Types of the checkpoint's tensors by name, such as ``BF16``."""
