"""The recipes of the published comparison, in its order."""

from surogate_bench.errors import ConfigError
from surogate_bench.recipes.bf16 import BF16
from surogate_bench.recipes.fp4 import FP4
from surogate_bench.recipes.fp8 import FP8
from surogate_bench.recipes.qbnb import QBNB
from surogate_bench.recipes.qfp4 import QFP4
from surogate_bench.recipes.qfp8_bf16 import QFP8_BF16
from surogate_bench.recipes.qfp8_fp8_hybrid import QFP8_FP8_HYBRID
from surogate_bench.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = (BF16, FP8, FP4, QBNB, QFP8_FP8_HYBRID, QFP8_BF16, QFP4)


def recipe_by_name(name: str) -> Recipe:
    """Return a built-in recipe by name.

    Raises:
        ConfigError: there is none of that name.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    known = ", ".join(recipe.name for recipe in RECIPES)
    raise ConfigError(
        "there is no such recipe",
        field="recipe",
        value=name,
        remedy=f"Use one of {known}, or define the recipe by its fields (see configs/recipes/ for examples).",
    )
