"""Errors about recipes that do not fit a model, found in its configuration by prepare or in the model by training."""

from surogate_bench.errors import ConfigError
from surogate_bench.recipes import Recipe
from surogate_bench.recipes.precisions import COMPUTES, STORAGES


def skips_everything(recipe: Recipe, blocks: int) -> ConfigError:
    """Make the error of a recipe that skips every transformer block.

    Args:
        recipe: The recipe.
        blocks: Number of the model's transformer blocks.
    """
    return ConfigError(
        f"leaves none of the model's {blocks} transformer blocks to quantize",
        field=f"recipe {recipe.name}: skip_first_layers + skip_last_layers",
        value=recipe.skip_first_layers + recipe.skip_last_layers,
        remedy="Skip fewer blocks.",
    )


def unfit_width(recipe: Recipe, found: str, *, value: int | str | None = None, can_keep: bool = True) -> ConfigError:
    """Make the error of a model with a width that the blocks of a recipe's formats do not divide.

    Args:
        recipe: A recipe with such a format.
        found: The width and where it is, as a sentence.
        value: The width, or the model's type.
        can_keep: Whether ``on_indivisible: keep`` would leave layers to quantize.
    """
    storage, compute = STORAGES[recipe.weight_storage], COMPUTES[recipe.compute]
    format_name = compute.short if compute.width_multiple > 1 else storage.short
    multiple = max(recipe.multiples)
    remedy = (
        f"Use a model whose widths are multiples of {multiple}, a recipe without {format_name}, or one with "
        "on_indivisible: pad, which pads blocks with zeros"
    )
    if can_keep:
        remedy += ", or keep, which leaves such layers in bf16"
    return ConfigError(
        f"{format_name} needs dimensions divisible by {multiple}, but {found}",
        field=_model_of(recipe),
        value=value,
        remedy=f"{remedy}.",
    )


def not_covered(recipe: Recipe, problem: str, *, value: str | None = None) -> ConfigError:
    """Make the error of a model with weights that are not in linear layers, and would stay in bf16.

    Args:
        recipe: A recipe that quantizes.
        problem: What is wrong, as a sentence.
        value: The model's type.
    """
    remedy = "Use a dense model, or only the bf16 recipe."
    return ConfigError(problem, field=_model_of(recipe), value=value, remedy=remedy)


def _model_of(recipe: Recipe) -> str:
    return f"recipe {recipe.name}: model"
