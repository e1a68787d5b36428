"""Descriptions of recipes: how weights are kept, how products are computed, and how that differs from serving."""

from collections.abc import Sequence

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench.recipes.precisions import COMPUTES, STORAGES
from surogate_bench_orchestrator.report.model.served import MATRIX_TITLE, Served
from surogate_bench_orchestrator.report.model.summary import RecipeText
from surogate_bench_orchestrator.report.text.formats import listed, percent, seeds


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


def mismatch(recipes: Sequence[Recipe], *, served_otherwise: bool = False) -> str:
    """Return a sentence on the recipes that were trained in other arithmetic than they are served in; empty if none.

    Args:
        recipes: Those that have been scored.
        served_otherwise: Whether the accuracies meant are of one way of serving among several.
    """
    stored, computed, both = _mismatched(recipes)
    all_kinds = bool(stored and computed and both)
    parts = [
        f"{what} ({listed(titles)})"
        for titles, what in (
            (computed, "quantized products"),
            (stored, "quantized weights"),
            (both, "both" if all_kinds else "quantized weights and products"),
        )
        if titles
    ]
    if not parts:
        return ""
    kinds = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
    several = len(stored) + len(computed) + len(both) > 1
    served = "As published, adapters were served" if served_otherwise else "All adapters were served"
    return (
        f"{served} on bf16 weights with bf16 products; the "
        f"{'accuracies of those' if several else 'accuracy of the one'} trained with {kinds} "
        f"{'include' if several else 'includes'} that mismatch."
    )


def served_as_trained(matrix: Served) -> str:
    """Return a sentence with the accuracies of adapters that were served as they were trained; empty if there is none.

    Seeds are named where they are not those of the accuracy as published.
    """
    parts = [
        f"{row.title} solved {percent(cell.score.accuracy)}"
        + ("" if cell.seeds == row.published.seeds else f" (with {seeds(cell.seeds)})")
        for row in matrix.rows
        if (cell := row.own) is not None and cell.score is not None
    ]
    return f"Served as trained instead, {listed(parts)}." if parts else ""


def mismatch_details(recipes: Sequence[Recipe], matrix: Served | None = None) -> str:
    """Return a note on the formats of training for each recipe where they are not those of serving; empty if none.

    Args:
        recipes: Recipes of the sweep.
        matrix: Accuracies by way of serving; None where there is one way only.
    """
    formats = [
        f"{recipe.title} on {STORAGES[recipe.weight_storage].short} weights with {COMPUTES[recipe.compute].short} "
        "products"
        for recipe in recipes
        if recipe.quantizes
    ]
    if not formats:
        return ""
    if matrix is not None:
        return (
            "The first table is of adapters served as published, on bf16 weights with bf16 products, but they were not "
            f"all trained so: {listed(formats)}. {_separated(matrix)}"
        )
    return (
        "All adapters are served on bf16 weights with bf16 products, as in the reference procedure, but were not all "
        f"trained so: {listed(formats)}. These rows differ from the reference by recipe and mismatch together; what a "
        "recipe costs by itself is not measured."
    )


def _separated(matrix: Served) -> str:
    """State for which recipes the cost of training and the mismatch are separated."""
    separated = [split.title for split in matrix.splits]
    if not separated:
        return "Recipe and mismatch are not separated: no adapter has been scored served as trained."
    return f"“{MATRIX_TITLE}” separates recipe and mismatch for {listed(separated)}."


def _mismatched(recipes: Sequence[Recipe]) -> tuple[list[str], list[str], list[str]]:
    """Return titles of recipes that quantize weights only, products only, and both."""
    stored, computed, both = list[str](), list[str](), list[str]()
    for recipe in recipes:
        weights = recipe.weight_storage is not WeightStorage.BF16
        products = recipe.compute is not ComputePrecision.BF16
        if weights or products:
            (both if weights and products else stored if weights else computed).append(recipe.title)
    return stored, computed, both
