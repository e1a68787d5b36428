"""What a sweep needs: memory and time of its training runs, and disk; None where no honest estimate exists."""

from collections.abc import Mapping
from dataclasses import dataclass

from surogate_bench.recipes import Recipe
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.inspection import Inspection
from surogate_bench_orchestrator.cli.commands.doctor.memory import (
    ModelShape,
    estimate_training_bytes,
    stored_weight_bytes,
)
from surogate_bench_orchestrator.cli.commands.inspection.speeds import Measured

_ADAPTER_BYTES, _CHECKPOINT_BYTES = 4, 12
"""Bytes of a trained parameter, in fp32: its value; its value and two moments."""
_CHECKPOINTS = 3
"""Two are kept, and the next one is written before the older is deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeNeeds:
    """Memory and time of one recipe's training runs."""

    recipe: str
    weight_bytes: int | None
    """Linear layers of the blocks, as stored."""
    gpu_memory_bytes: int | None
    """Peak on a GPU, estimated from the configuration."""
    measured: Measured | None
    train_seconds: float | None
    """Optimizer steps of the longest of the seeds, at the measured speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskNeeds:
    """Bytes that a sweep writes."""

    store_model: int
    """The converted model; 0 where the model is not copied."""
    data: int
    adapters: int
    """Bytes of the adapters of all runs that are trained here."""
    checkpoints: int
    """Bytes of the checkpoints of the runs that train at once; deleted when each ends."""


def recipe_needs(
    sweep: RecipeSweep, inspection: Inspection, measured: Mapping[str, Measured]
) -> tuple[RecipeNeeds, ...]:
    """Return what each recipe needs."""
    shape = ModelShape.of(inspection.configuration)
    tokens = max(each.total.tokens for each in inspection.schedules)
    lora = inspection.lora_parameters
    return tuple(_needs(recipe, shape, sweep, tokens, lora, measured.get(recipe.name)) for recipe in sweep.recipes)


def _needs(
    recipe: Recipe, shape: ModelShape | None, sweep: RecipeSweep, tokens: int, lora: int, measured: Measured | None
) -> RecipeNeeds:
    training = sweep.training
    return RecipeNeeds(
        recipe=recipe.name,
        weight_bytes=None if shape is None else stored_weight_bytes(shape, recipe),
        gpu_memory_bytes=None
        if shape is None
        else estimate_training_bytes(shape, recipe, training, lora_parameters=lora),
        measured=measured,
        train_seconds=None if measured is None else tokens / measured.tokens_per_second,
    )


def disk_needs(sweep: RecipeSweep, inspection: Inspection, *, side_by_side: int) -> DiskNeeds:
    """Return what the sweep writes.

    Args:
        sweep: The sweep.
        inspection: Has the sizes of model, data and adapter.
        side_by_side: Training runs that are active at once.
    """
    runs = len(sweep.recipes) * len(sweep.seeds)
    return DiskNeeds(
        store_model=inspection.model_bytes if inspection.prepared.model_in_store else 0,
        data=inspection.data_bytes,
        adapters=runs * inspection.lora_parameters * _ADAPTER_BYTES,
        checkpoints=min(runs, side_by_side) * _CHECKPOINTS * inspection.lora_parameters * _CHECKPOINT_BYTES,
    )
