"""Precision recipes, including the seven of the published comparison. Free of torch."""

from surogate_bench.recipes.precisions import ComputePrecision, WeightStorage
from surogate_bench.recipes.recipe import Recipe
from surogate_bench.recipes.registry import RECIPES, recipe_by_name

__all__ = ["RECIPES", "ComputePrecision", "Recipe", "WeightStorage", "recipe_by_name"]
