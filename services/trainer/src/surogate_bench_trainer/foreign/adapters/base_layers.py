"""The linear layers of the base model that an adapter can change."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from surogate_bench.specs.adapters import SERVED_MODULES
from surogate_bench.specs.lora import LoraSpec
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench_trainer.model.coverage import shortest_names, transformer_blocks
from surogate_bench_trainer.model.loading import loading_model

LARGEST_HEADER = 16 << 20
"""Bytes of a safetensors header: names and shapes of some hundred thousand tensors."""
_BYTES_PER_VALUE = 4


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Widths of a linear layer."""

    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseLayers:
    """The base model that adapters are checked against."""

    served: Mapping[str, LayerShape]
    """Layers whose adapters vLLM serves, by full name as in ``model.layers.0.self_attn.q_proj``."""
    others: frozenset[str]
    """Full names of all other modules."""

    def largest_file(self, rank: int) -> int:
        """Return the bytes of an fp32 adapter of this rank on every layer, with the largest header."""
        values = sum(rank * (shape.inputs + shape.outputs) for shape in self.served.values())
        return LARGEST_HEADER + _BYTES_PER_VALUE * values

    def targets(self, lora: LoraSpec) -> list[str]:
        """Return the layers that a sweep requests adapters on, by full name."""
        return [layer for layer in self.served if lora.targets(layer)]

    def selection(self, layers: Collection[str]) -> list[str]:
        """Name layers for PEFT's ``target_modules``."""
        return shortest_names(layers, self.served)


def read_base_layers(location: ModelLocation) -> BaseLayers:
    """Build the base model's modules without data and list them.

    Raises:
        ConfigError: the model cannot be loaded.
        TransientError: it is not in the cache, and the hub cannot be reached.
    """
    with loading_model(location.name_or_path), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(location.name_or_path))
    blocks = transformer_blocks(model)
    prefix = next(name for name, module in model.named_modules() if module is blocks)
    served = {
        f"{prefix}.{name}": LayerShape(module.in_features, module.out_features)
        for name, module in blocks.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in SERVED_MODULES
    }
    return BaseLayers(
        served=served, others=frozenset(name for name, _ in model.named_modules() if name and name not in served)
    )
