"""Which engine computes a recipe's products, decided without torch.

The trainer, ``surogate-bench recipes`` and the placement of pods all use these functions.
"""

from surogate_bench.recipes.precisions import COMPUTES, STORAGES, ComputeCapability, ComputePrecision, EngineSupport
from surogate_bench.recipes.recipe import Recipe

AUTO = "auto"
"""Requests the fastest engine that the device supports."""


def implemented_engines(recipe: Recipe) -> tuple[EngineSupport, ...]:
    """List the engines that implement a recipe on some device, fastest first; also those that must be requested."""
    only = STORAGES[recipe.weight_storage].engine
    return COMPUTES[recipe.compute].engines if only is None else (only,)


def supported_engines(recipe: Recipe, requested: str = AUTO) -> tuple[EngineSupport, ...]:
    """List the engines among which one is selected for a recipe, fastest first.

    A request selects how low-precision products are computed; it has no effect on a recipe with bf16 products.

    Args:
        recipe: Recipe to run.
        requested: Name of an engine, or ``auto``.

    Returns:
        Empty if the engine requested does not implement the recipe.
    """
    engines = implemented_engines(recipe)
    if requested == AUTO or recipe.compute is ComputePrecision.BF16:
        return tuple(each for each in engines if not each.on_request)
    return tuple(each for each in engines if each.engine == requested)


def required_capability(recipe: Recipe, requested: str = AUTO) -> ComputeCapability | None:
    """Compute capability that the engine selected for a recipe needs on suitable hardware; None if it needs none.

    ``auto`` prefers the fastest engine, so the requirement is that engine's. A format without an engine that uses its
    tensor cores is emulated and requires nothing, whatever hardware the format was made for.
    """
    engines = supported_engines(recipe, requested)
    return engines[0].min_compute_capability if engines else None


def serving_capability(recipe: Recipe, requested: str = AUTO) -> ComputeCapability | None:
    """Compute capability that a server of a base under a recipe needs, as :func:`required_capability` for training."""
    return None if COMPUTES[recipe.compute].is_served_emulated else required_capability(recipe, requested)


def select_support(recipe: Recipe, available: ComputeCapability | None, requested: str = AUTO) -> EngineSupport | None:
    """Select the fastest engine for a device.

    Args:
        recipe: Recipe to run.
        available: The device's compute capability; None for a CPU, or where it is not known.
        requested: Name of an engine, or ``auto``.

    Returns:
        None if no engine, or not the one requested, can run the recipe there; see :func:`unsupported_reason`.
    """
    for support in supported_engines(recipe, requested):
        needed = support.min_compute_capability
        if needed is None or (available is not None and available >= needed):
            return support
    return None


def unsupported_reason(recipe: Recipe, requested: str) -> str:
    """Return, as a clause, why the requested engine cannot run a recipe on a device."""
    engines = supported_engines(recipe, requested)
    if not engines:
        if requested not in ENGINE_NAMES:
            return f"{requested}: no such engine in this version; there are {', '.join(ENGINE_NAMES)}"
        others = ", ".join(each.engine for each in implemented_engines(recipe))
        return f"{requested}: it does not compute {recipe.compute} products; use {others}"
    return "; ".join(_requirement(each, recipe) for each in engines)


def _requirement(support: EngineSupport, recipe: Recipe) -> str:
    major, minor = support.min_compute_capability or (0, 0)
    return f"{support.engine}: its {recipe.compute} products need a GPU of compute capability {major}.{minor} or later"


def _engine_names() -> tuple[str, ...]:
    supports = [each for compute in COMPUTES.values() for each in compute.engines]
    supports += [storage.engine for storage in STORAGES.values() if storage.engine]
    return tuple(dict.fromkeys(each.engine for each in supports))


ENGINE_NAMES = _engine_names()
"""Every engine of this version."""
