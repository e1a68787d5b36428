"""Which weights of a model's transformer blocks a recipe covers."""

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from surogate_bench.errors import PermanentError


def transformer_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Find the list of a model's transformer blocks.

    Raises:
        PermanentError: there is no list of as many modules as the configuration has layers.
    """
    count = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise PermanentError(f"{type(model).__name__}: no list of {count} transformer blocks found in this architecture")


def linear_names(model: PreTrainedModel) -> set[str]:
    """Last parts of the names of the linear layers inside the transformer blocks, for example ``q_proj``."""
    return {
        name.rpartition(".")[2]
        for name, module in transformer_blocks(model).named_modules()
        if isinstance(module, nn.Linear)
    }


def matrices(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Weights that products are computed with: parameters of two or more dimensions, experts' 3-D ones included."""
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.ndim > 1)


def uncovered_matrices(model: PreTrainedModel, *, first: int = 0, last: int | None = None) -> dict[str, int]:
    """Weights that no recipe can quantize, because they are not those of linear layers.

    Args:
        model: bf16, or on the meta device.
        first: First transformer block to look at.
        last: End of the blocks to look at; all that follow if None.

    Returns:
        Number of elements by name within the list of blocks.
    """
    blocks = transformer_blocks(model)
    stop = len(blocks) if last is None else last
    return {
        f"{index}.{name}": parameter.numel()
        for index in range(first, stop)
        for name, parameter in matrices(blocks[index])
        if not isinstance(blocks[index].get_submodule(name.rpartition(".")[0]), nn.Linear)
    }
