"""How many bytes an export takes, known before the weights are loaded."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from surogate_bench.recipes import Recipe
from surogate_bench.recipes.precisions import STORAGES
from surogate_bench.stages.exports import ExportFormat
from surogate_bench.user_paths import require_free_space
from surogate_bench_trainer.model.coverage import transformer_blocks
from surogate_bench_trainer.model.loading import loading_model
from surogate_bench_trainer.prepare.base_model.checkpoint_files import checkpoint_headers

_BYTES_PER_LAYER = 4096
"""Code tables, ragged blocks, and entries of the header."""
_BESIDE_WEIGHTS = 64 << 20
"""Tokenizer, configuration and slack."""


def expected_bytes(folder: Path, recipe: Recipe, export_format: ExportFormat) -> int:
    """Estimate the size of an export from the headers of the checkpoint and the architecture."""
    sizes = [_elements(tensor["shape"]) for header in checkpoint_headers(folder).values() for tensor in header.values()]
    weights, layers = (0, 0) if export_format is ExportFormat.BF16 else _covered(folder, recipe)
    stored = weights * STORAGES[recipe.weight_storage].bytes_per_weight
    return int(2 * (sum(sizes) - weights) + stored) + _BYTES_PER_LAYER * layers


def require_room(output: Path, needed: int) -> None:
    """Check the free space of the disk that an export is written to.

    Raises:
        ConfigError: there is too little.
    """
    require_free_space(output, needed + _BESIDE_WEIGHTS, field="output", what="the checkpoint takes")


def _covered(folder: Path, recipe: Recipe) -> tuple[int, int]:
    """Count the weights, and the layers, that a recipe stores."""
    with loading_model(str(folder)), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    blocks = transformer_blocks(model)
    kept = blocks[recipe.skip_first_layers : len(blocks) - recipe.skip_last_layers]
    sizes = [module.weight.numel() for module in kept.modules() if isinstance(module, nn.Linear)]
    return sum(sizes), len(sizes)


def _elements(shape: list[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
