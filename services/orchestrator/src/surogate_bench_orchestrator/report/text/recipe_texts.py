"""Descriptions of recipes: how weights are kept, and how products are computed."""

from surogate_bench.recipes import Recipe
from surogate_bench.recipes.precisions import COMPUTES, STORAGES
from surogate_bench_orchestrator.report.model.summary import RecipeText


def recipe_text(recipe: Recipe) -> RecipeText:
    """Describe one recipe: how weights are kept, how products are computed, what deviates from the default."""
    details = []
    if recipe.skip_first_layers or recipe.skip_last_layers:
        details.append(f"The first {recipe.skip_first_layers} and last {recipe.skip_last_layers} blocks stay in bf16.")
    storage, compute = STORAGES[recipe.weight_storage], COMPUTES[recipe.compute]
    if compute.details is not None:
        details.append(compute.details(recipe))
    return RecipeText(
        name=recipe.name,
        title=recipe.title,
        storage=storage.description,
        compute=compute.description,
        details=" ".join(details),
    )
