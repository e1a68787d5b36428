"""The weights of a model's transformer blocks that a recipe covers."""

from collections.abc import Collection, Iterator

from torch import nn
from transformers import PreTrainedModel

from surogate_bench.errors import PermanentError
from surogate_bench.recipes import Recipe
from surogate_bench_trainer.model.recipe_errors import skips_everything


def transformer_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Find the list of a model's transformer blocks.

    Raises:
        PermanentError: the model has no module list with as many modules as the configuration has layers.
    """
    count = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise PermanentError(f"{type(model).__name__}: no list of {count} transformer blocks found in this architecture")


def quantized_blocks(model: PreTrainedModel, recipe: Recipe) -> range:
    """Return the indices of the transformer blocks that a recipe does not skip.

    Raises:
        ConfigError: it skips all.
        PermanentError: as :func:`transformer_blocks`.
    """
    count = len(transformer_blocks(model))
    blocks = range(recipe.skip_first_layers, count - recipe.skip_last_layers)
    if not blocks:
        raise skips_everything(recipe, count)
    return blocks


def target_layers(model: PreTrainedModel, recipe: Recipe) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers of the blocks that a recipe does not skip, by name within the list of blocks.

    Raises:
        ConfigError, PermanentError: as :func:`quantized_blocks`.
    """
    blocks = transformer_blocks(model)
    return [
        (f"{index}.{name}", module)
        for index in quantized_blocks(model, recipe)
        for name, module in blocks[index].named_modules()
        if isinstance(module, nn.Linear)
    ]


def path_of(module: nn.Module, model: nn.Module) -> str:
    """Return the path of a module within a model, for example ``model.layers``."""
    paths: dict[nn.Module, str] = {found: path for path, found in model.named_modules()}
    return paths[module]


def linear_paths(model: PreTrainedModel) -> list[str]:
    """Return the paths of the linear layers inside the transformer blocks, as ``model.layers.0.mlp.up_proj``."""
    blocks = transformer_blocks(model)
    prefix = path_of(blocks, model)
    return [f"{prefix}.{name}" for name, module in blocks.named_modules() if isinstance(module, nn.Linear)]


def shortest_names(layers: Collection[str], among: Collection[str]) -> list[str]:
    """Name layers for PEFT's ``target_modules``: by the last part of their names where all layers of it are.

    Args:
        layers: Full names of the layers.
        among: Full names of all layers that could be named.
    """
    left = {short_name(name) for name in among if name not in layers}
    return sorted({name if short_name(name) in left else short_name(name) for name in layers})


def short_name(layer: str) -> str:
    """Return the last part of a layer's full name, as ``q_proj``."""
    return layer.rpartition(".")[2]


def matrices(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the weights of matrix products: parameters of two or more dimensions, including experts' 3-D parameters."""
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.ndim > 1)


def uncovered_matrices(model: PreTrainedModel, among: Collection[int] | None = None) -> dict[str, int]:
    """Return the weights that no recipe can quantize because they do not belong to linear layers.

    Args:
        model: A bf16 model, or one on the meta device.
        among: Indices of the transformer blocks to include; all if None.

    Returns:
        Number of elements by the weight's name within the list of blocks.
    """
    blocks = transformer_blocks(model)
    return {
        f"{index}.{name}": parameter.numel()
        for index in (range(len(blocks)) if among is None else among)
        for name, parameter in matrices(blocks[index])
        if not isinstance(blocks[index].get_submodule(name.rpartition(".")[0]), nn.Linear)
    }
