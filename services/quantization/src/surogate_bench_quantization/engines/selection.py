"""Selection of the engine for a recipe."""

from collections.abc import Mapping

import torch

from surogate_bench.errors import UnsupportedRecipeError
from surogate_bench.recipes import Recipe
from surogate_bench.recipes.engines import AUTO, select_support, unsupported_reason
from surogate_bench_quantization.engines.emulated import EmulatedEngine
from surogate_bench_quantization.engines.engine import Engine
from surogate_bench_quantization.engines.native import BitsAndBytesEngine, TorchEngine
from surogate_bench_quantization.engines.transformer_engine import TransformerEngine

ENGINES: Mapping[str, Engine] = {
    engine.name: engine for engine in (TorchEngine(), BitsAndBytesEngine(), TransformerEngine(), EmulatedEngine())
}
"""Implementations of the engines that :mod:`surogate_bench.recipes.precisions` names."""


def select_engine(recipe: Recipe, device: torch.device, requested: str = AUTO) -> Engine:
    """Choose the fastest engine that is faithful to the recipe, or the one requested.

    Args:
        recipe: Recipe to run.
        device: Device of the model.
        requested: Name of an engine, or ``auto``; see :func:`surogate_bench.recipes.engines.supported_engines`.

    Raises:
        UnsupportedRecipeError: the engine requested, or every engine, cannot run the recipe here.
    """
    available = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    support = select_support(recipe, available, requested)
    if support is not None:
        return ENGINES[support.engine]
    reason = unsupported_reason(recipe, requested)
    raise UnsupportedRecipeError(f"recipe {recipe.name} cannot run on {_describe(device, available)} ({reason})")


def _describe(device: torch.device, available: tuple[int, int] | None) -> str:
    if available is None:
        return device.type
    return f"{torch.cuda.get_device_name(device)}, which has compute capability {available[0]}.{available[1]}"
