"""``surogate-bench recipes``: the built-in recipes, and how this machine runs them."""

import json
from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table

from surogate_bench.recipes import RECIPES, Recipe
from surogate_bench.recipes.engines import required_capability
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles
from surogate_bench_orchestrator.runtimes.local.capabilities import Capability, capability
from surogate_bench_orchestrator.runtimes.local.machine import detect_machine

_COLUMNS = ("recipe", "title", "weights stored as", "products in", "engine here", "")


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


def recipe_table(capabilities: list[tuple[Recipe, Capability]]) -> Table:
    """Return a table of recipes, and of the engines that run them."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name)
    for recipe, here in capabilities:
        storage, compute = recipe.weight_storage.value, recipe.compute.value
        table.add_row(recipe.name, recipe.title, storage, compute, here.engine or "cannot run", here.note)
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
