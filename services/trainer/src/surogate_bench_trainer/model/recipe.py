"""Application of a recipe to a model: replaces the linear layers inside its transformer blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from surogate_bench.errors import PermanentError
from surogate_bench.recipes import Recipe
from surogate_bench_quantization.engines import Engine, EngineSession
from surogate_bench_quantization.linear import FrozenLinear
from surogate_bench_quantization.stored_layers import is_stored, weight_nbytes
from surogate_bench_trainer.model.coverage import (
    matrices,
    path_of,
    quantized_blocks,
    target_layers,
    transformer_blocks,
    uncovered_matrices,
)
from surogate_bench_trainer.model.recipe_errors import not_covered, unfit_width


@dataclass(frozen=True, kw_only=True, slots=True)
class AppliedRecipe:
    """A recipe that has been applied to a model: its size, coverage and state."""

    engine_name: str
    """Name of the engine that computes the products."""
    weight_bytes: int
    """Bytes of the weights of all linear layers inside the transformer blocks, including skipped layers."""
    operand_cache_bytes: int
    """Bytes of operands that are kept in addition, to make products faster."""
    covered_share: float
    """Fraction of the elements of the blocks' matrices that the recipe covers; 1 without quantization."""
    session: EngineSession
    """State of the engine."""
    replaced: tuple[str, ...]
    """Module paths of the layers that the recipe replaced, in order."""
    kept: tuple[str, ...]
    """Names of the layers that stay in bf16 because the recipe's blocks do not divide them, as ``mlp.down_proj``."""
    padded: tuple[str, ...]
    """Names of the layers whose last blocks were padded with zeros instead."""

    def end_of_optimizer_step(self) -> None:
        """Update the scales of delayed scaling. Call once after every optimizer step."""
        self.session.end_of_optimizer_step()

    @property
    def maxima(self) -> Sequence[Tensor]:
        """Largest magnitudes that delayed scaling has recorded in this step, to be combined over processes."""
        return self.session.maxima

    def input_scales(self) -> dict[str, Tensor]:
        """Copy the input scales in force (0-dim fp32), by module path; empty unless inputs have delayed scaling."""
        scales = self.session.input_scales()
        return dict(zip(self.replaced, scales, strict=True)) if scales else {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the state for a checkpoint: amax histories, scales, generators."""
        return self.session.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state from a checkpoint of the same recipe and model.

        Raises:
            KeyError: the state belongs to another recipe.
            RuntimeError: the state belongs to another model.
        """
        self.session.load_state_dict(state)


def apply_recipe(
    model: PreTrainedModel, recipe: Recipe, *, engine: Engine, seed: int, keeping: Recipe | None = None
) -> AppliedRecipe:
    """Replace the linear layers of a frozen bf16 model in place, before LoRA is attached.

    Embeddings, norms and the output head are unchanged. A recipe without quantization replaces nothing.

    Args:
        model: A bf16 model on its final device.
        recipe: The recipe to apply.
        engine: The result of ``select_engine``.
        seed: Seed of stochastic rounding.
        keeping: Another recipe, which decides what stays in bf16 because blocks do not divide it.

    Raises:
        ConfigError: a layer's shape does not fit the recipe's blocks, the recipe skips all transformer blocks, or a
            block has weights outside linear layers.
        PermanentError: the model has no recognizable transformer blocks, or is not bf16.
    """
    blocks = transformer_blocks(model)
    candidates, deciding = target_layers(model, recipe), keeping or recipe
    targets = [(name, linear) for name, linear in candidates if not _is_kept(linear, deciding)]
    if recipe.quantizes:
        _check_coverage(uncovered_matrices(model, quantized_blocks(model, recipe)), recipe)
    for name, linear in targets:
        _check(name, linear, recipe)
    kept = _short_names(name for name, linear in candidates if _is_kept(linear, deciding))
    padded = _short_names(name for name, linear in targets if not _fits(linear, recipe))
    if not targets:
        raise unfit_width(recipe, "every layer of the transformer blocks has such a dimension", can_keep=False)
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
        weight_bytes=sum(map(weight_nbytes, linears)),
        operand_cache_bytes=sum(
            linear.products.operand_nbytes for linear in linears if isinstance(linear, FrozenLinear)
        ),
        covered_share=covered / total if recipe.quantizes else 1.0,
        session=session,
        kept=kept,
        padded=padded,
        replaced=tuple(f"{path_of(blocks, model)}.{name}" for name, _ in targets),
    )


def _check_coverage(left: dict[str, int], recipe: Recipe) -> None:
    if left:
        raise not_covered(
            recipe,
            f"would leave {sum(left.values())} weights of the transformer blocks in bf16, which are not in linear "
            f"layers, the first of them in {next(iter(left))}",
        )


def _check_replaced(layers: list[nn.Module]) -> None:
    kept = [layer for layer in layers if not is_stored(layer)]
    if kept:
        raise PermanentError(f"{len(kept)} of {len(layers)} linear layers were not quantized by the recipe")


def _check(name: str, linear: nn.Linear, recipe: Recipe) -> None:
    if linear.weight.dtype != torch.bfloat16:
        raise PermanentError(f"block {name} is {linear.weight.dtype}: recipes start from a bf16 model")
    if recipe.on_indivisible != "pad" and not _fits(linear, recipe):
        raise unfit_width(
            recipe, f"transformer block layer {name} has {linear.in_features} inputs and {linear.out_features} outputs"
        )


def _is_kept(linear: nn.Linear, recipe: Recipe) -> bool:
    return recipe.on_indivisible == "keep" and not _fits(linear, recipe)


def _fits(linear: nn.Linear, recipe: Recipe) -> bool:
    return recipe.fits(linear.in_features, linear.out_features)


def _short_names(names: Iterable[str]) -> tuple[str, ...]:
    """Leave out the number of the block, and what repeats."""
    return tuple(dict.fromkeys(name.partition(".")[2] for name in names))
