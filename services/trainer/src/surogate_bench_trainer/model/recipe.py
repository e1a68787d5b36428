"""Put a recipe into a model: replace the linear layers inside its transformer blocks."""

from dataclasses import dataclass

import torch
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn
from transformers import PreTrainedModel

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.recipes import Recipe
from surogate_bench.recipes.precisions import COMPUTES, STORAGES
from surogate_bench_quantization.engines import Engine, EngineSession
from surogate_bench_quantization.linear import QuantizedLinear
from surogate_bench_quantization.storage.nf4 import nf4_nbytes
from surogate_bench_trainer.model.coverage import matrices, transformer_blocks, uncovered_matrices


@dataclass(frozen=True, kw_only=True, slots=True)
class AppliedRecipe:
    """A recipe at work in a model: what it takes, and what a training loop has to tell it."""

    engine_name: str
    """Who does the arithmetic."""
    weight_bytes: int
    """Bytes of the weights of all linear layers inside the transformer blocks, skipped ones included."""
    operand_cache_bytes: int
    """Bytes kept beside them to make products faster."""
    covered_share: float
    """Share of the blocks' weight matrices that the recipe covers; 1 for a recipe without quantization."""
    session: EngineSession
    """The engine's state."""

    def end_of_optimizer_step(self) -> None:
        """Call once after every optimizer step: scales of delayed scaling move."""
        self.session.end_of_optimizer_step()

    def state_dict(self) -> dict[str, Tensor]:
        """Flat copy of what a checkpoint needs beyond model and optimizer: amax histories, scales, generator."""
        return self.session.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a checkpoint of the same recipe and model.

        Raises:
            KeyError: the state belongs to another recipe.
            RuntimeError: the state belongs to another model.
        """
        self.session.load_state_dict(state)


def apply_recipe(model: PreTrainedModel, recipe: Recipe, *, engine: Engine, seed: int) -> AppliedRecipe:
    """Replace the linear layers of a frozen bf16 model, in place, before LoRA is attached.

    Embeddings, norms and the output head stay as they are. A recipe without quantization replaces nothing.

    Args:
        model: bf16, already on its device.
        recipe: What to apply.
        engine: From ``select_engine``.
        seed: Of stochastic rounding.

    Raises:
        ConfigError: a layer's shape does not fit the recipe's blocks, more blocks are skipped than there are, or a
            block has weights that are not those of linear layers.
        PermanentError: the model has no recognizable transformer blocks, or is not bf16.
    """
    blocks = transformer_blocks(model)
    last = len(blocks) - recipe.skip_last_layers
    if recipe.quantizes and recipe.skip_first_layers >= last:
        raise ConfigError(
            f"leaves none of the model's {len(blocks)} transformer blocks to quantize",
            field=f"recipe {recipe.name}: skip_first_layers + skip_last_layers",
            value=recipe.skip_first_layers + recipe.skip_last_layers,
            remedy="Skip fewer blocks.",
        )
    targets = [
        (f"{index}.{name}", module)
        for index in range(recipe.skip_first_layers, last)
        for name, module in blocks[index].named_modules()
        if isinstance(module, nn.Linear)
    ]
    if recipe.quantizes:
        _check_coverage(uncovered_matrices(model, first=recipe.skip_first_layers, last=last), recipe)
    for name, linear in targets:
        _check(name, linear, recipe)
    total = sum(weight.numel() for _, weight in matrices(blocks))
    covered = sum(linear.weight.numel() for _, linear in targets)
    session = engine.start(recipe, layers=len(targets), device=model.device, seed=seed)
    for name, linear in targets:
        blocks.set_submodule(name, session.replace(linear))
    if recipe.quantizes:
        _check_replaced([blocks.get_submodule(name) for name, _ in targets])
    linears = [module for module in blocks.modules() if isinstance(module, nn.Linear)]
    return AppliedRecipe(
        engine_name=engine.name,
        weight_bytes=sum(map(_weight_bytes, linears)),
        operand_cache_bytes=sum(
            linear.products.operand_nbytes for linear in linears if isinstance(linear, QuantizedLinear)
        ),
        covered_share=covered / total if recipe.quantizes else 1.0,
        session=session,
    )


def _check_coverage(left: dict[str, int], recipe: Recipe) -> None:
    if left:
        raise ConfigError(
            f"would leave {sum(left.values())} weights of the transformer blocks in bf16, which are not in linear "
            f"layers, the first of them in {next(iter(left))}",
            field=f"recipe {recipe.name}: model",
            remedy="Use a dense model, or the bf16 recipe alone.",
        )


def _check_replaced(layers: list[nn.Module]) -> None:
    kept = [layer for layer in layers if not isinstance(layer, QuantizedLinear | Linear4bit)]
    if kept:
        raise PermanentError(f"{len(kept)} of {len(layers)} linear layers were not quantized by the recipe")


def _check(name: str, linear: nn.Linear, recipe: Recipe) -> None:
    if linear.weight.dtype != torch.bfloat16:
        raise PermanentError(f"block {name} is {linear.weight.dtype}: recipes start from a bf16 model")
    storage, compute = STORAGES[recipe.weight_storage], COMPUTES[recipe.compute]
    widths = (
        (storage.short, storage.input_multiple, linear.in_features),
        (compute.short, compute.width_multiple, linear.in_features),
        (compute.short, compute.width_multiple, linear.out_features),
    )
    for format_name, multiple, width in widths:
        if width % multiple:
            raise ConfigError(
                f"{format_name} needs dimensions divisible by {multiple}, but transformer block layer {name} has "
                f"{linear.in_features} inputs and {linear.out_features} outputs",
                field=f"recipe {recipe.name}: model",
                remedy=f"Use a model whose widths are multiples of {multiple}, or a recipe without {format_name}.",
            )


def _weight_bytes(linear: nn.Linear) -> int:
    if isinstance(linear, QuantizedLinear):
        return linear.storage.nbytes
    if isinstance(linear, Linear4bit):
        return nf4_nbytes(linear)
    return linear.weight.nbytes
