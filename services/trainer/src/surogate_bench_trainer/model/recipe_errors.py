"""Errors about recipes that do not fit a model, found in its configuration by prepare or in the model by training."""

from surogate_bench.errors import ConfigError
from surogate_bench.recipes import Recipe


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


def unfit_width(recipe: Recipe, problem: str, *, format_name: str, multiple: int, value: int | None) -> ConfigError:
    """Make the error of a model with a width that the blocks of a format do not divide.

    Args:
        recipe: A recipe with that format.
        problem: What is wrong, as a sentence.
        format_name: Name of the format.
        multiple: What widths must be divisible by.
        value: The width; None if the problem names it.
    """
    remedy = (
        f"Use a model whose widths are multiples of {multiple}, a recipe without {format_name}, or one with "
        "on_indivisible: keep, which leaves such layers in bf16."
    )
    return ConfigError(problem, field=_model_of(recipe), value=value, remedy=remedy)


def not_covered(recipe: Recipe, problem: str, *, value: str | None = None) -> ConfigError:
    """Make the error of a model with weights that are not in linear layers, and would stay in bf16.

    Args:
        recipe: A recipe that quantizes.
        problem: What is wrong, as a sentence.
        value: The model's type.
    """
    remedy = "Use a dense model, or the bf16 recipe alone."
    return ConfigError(problem, field=_model_of(recipe), value=value, remedy=remedy)


def _model_of(recipe: Recipe) -> str:
    return f"recipe {recipe.name}: model"
