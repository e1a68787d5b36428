"""Which engine runs a recipe."""

import torch

from surogate_bench.errors import UnsupportedRecipeError
from surogate_bench.recipes import ComputePrecision, Recipe
from surogate_bench_quantization.engines.emulated import EmulatedEngine
from surogate_bench_quantization.engines.engine import Engine
from surogate_bench_quantization.engines.native import BitsAndBytesEngine, TorchEngine

ENGINES: tuple[Engine, ...] = (TorchEngine(), BitsAndBytesEngine(), EmulatedEngine())
"""From the fastest to the slowest."""


def select_engine(recipe: Recipe, device: torch.device, requested: str = "auto") -> Engine:
    """Choose the fastest engine that is faithful to the recipe, or the one asked for.

    What may be asked for is how low-precision products are computed, so a recipe with bf16 products has nothing to ask
    for and always runs natively.

    Args:
        recipe: Recipe to run.
        device: Where the model is.
        requested: Name of an engine, or ``auto``.

    Raises:
        UnsupportedRecipeError: the engine asked for, or every engine, cannot run the recipe here.
    """
    free_choice = requested == "auto" or recipe.compute is ComputePrecision.BF16
    candidates = [engine for engine in ENGINES if free_choice or engine.name == requested]
    reasons = []
    for engine in candidates:
        reason = engine.why_not(recipe, device)
        if reason is None:
            return engine
        reasons.append(f"{engine.name}: {reason}")
    if not candidates:
        reasons.append(f"{requested}: no such engine in this version; there are {', '.join(e.name for e in ENGINES)}")
    raise UnsupportedRecipeError(f"recipe {recipe.name} cannot run on {device.type} ({'; '.join(reasons)})")
