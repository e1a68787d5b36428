"""``surogate-bench recipes``: the built-in recipes, and how this machine runs them."""

import json
from collections.abc import Iterable

from rich.text import Text

from surogate_bench.recipes import RECIPES, Recipe
from surogate_bench.recipes.engines import required_capability
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles
from surogate_bench_orchestrator.report.tables.fitted_table import Column, FittedTable
from surogate_bench_orchestrator.runtimes.local.capabilities import Capability, capability
from surogate_bench_orchestrator.runtimes.local.machine import detect_machine

_COLUMNS = (
    Column(header="recipe"),
    Column(header="title", rank=2),
    Column(header="weights stored as", rank=1),
    Column(header="products in", rank=1),
    Column(header="engine here"),
    Column(header="", rank=3, folds=True, remark=True),
)


def show_recipes(*, as_json: bool, consoles: Consoles) -> None:
    """Show the definition of each recipe, and the engine with which this machine runs it."""
    capabilities = capabilities_here(RECIPES)
    if as_json:
        consoles.output.print_json(json.dumps([_as_json(recipe, here) for recipe, here in capabilities]))
    else:
        consoles.output.print(recipe_table(capabilities))


def capabilities_here(recipes: Iterable[Recipe]) -> list[tuple[Recipe, Capability]]:
    """Return how this machine runs each recipe."""
    machine = detect_machine()
    return [(recipe, capability(recipe, machine)) for recipe in recipes]


def recipe_table(capabilities: list[tuple[Recipe, Capability]]) -> FittedTable:
    """Return a table of recipes, and of the engines that run them."""
    table = FittedTable(_COLUMNS)
    for recipe, here in capabilities:
        storage, compute = recipe.weight_storage.value, recipe.compute.value
        cells = (recipe.name, recipe.title, storage, compute, here.engine or "cannot run", here.note)
        table.add_row([Text(cell) for cell in cells])
    return table


def _as_json(recipe: Recipe, here: Capability) -> dict[str, object]:
    return {
        "name": recipe.name,
        "title": recipe.title,
        "weight_storage": recipe.weight_storage.value,
        "compute": recipe.compute.value,
        "min_compute_capability": required_capability(recipe),
        "can_run": here.engine is not None,
        "engine": here.engine,
        "note": here.note,
    }
