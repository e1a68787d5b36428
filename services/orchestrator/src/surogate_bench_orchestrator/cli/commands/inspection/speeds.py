"""Speeds measured on this machine: finished training runs in the store that equal a recipe's in all that costs time."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from surogate_bench.errors import PermanentError
from surogate_bench.layout import SWEEPS, SweepLayout, manifest_key, run_name
from surogate_bench.machine.hardware import Hardware
from surogate_bench.recipes import Recipe
from surogate_bench.results import PrepareResult, TrainResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.identity import model_identity
from surogate_bench.stages.manifest import Manifest, result_of
from surogate_bench.stages.publication import read_manifest
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.runtimes.local.machine import Allotment
from surogate_bench_orchestrator.sweep.reuse import prepared_sweeps

_COSTS_TIME = ("lora", "packing", "max_length", "micro_batch_size", "gpus", "loss_on")
"""Training settings that change the time of a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One finished training run whose speed holds for another."""

    tokens_per_second: float
    peak_memory_bytes: int
    run: str
    sweep: str
    """Name and hash of its sweep."""
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """Where the sweep would run."""

    hardware: Hardware
    """Hardware of this machine, with its GPU."""
    allotment: Allotment

    def is_alike(self, manifest: Manifest, result: TrainResult) -> bool:
        """Return whether a training run was made on such hardware, with as much of it."""
        ran, here = manifest.hardware, self.hardware
        same = (ran.cpu, ran.cores, ran.gpu) == (here.cpu, here.cores, here.gpu)
        of_each = max(1, self.allotment.threads // result.processes)
        threads = here.gpu is not None or result.threads == of_each
        return same and threads and result.side_by_side == self.allotment.side_by_side


def measured_speeds(
    store: ObjectStore, sweep: RecipeSweep, prepared: PrepareResult, here: Here
) -> Mapping[str, Measured]:
    """Return the newest measurement of each recipe that has one, by the recipe's name.

    Args:
        store: Has finished training runs of any sweep.
        sweep: The sweep that is to run.
        prepared: Identifies its model.
        here: Where it would run.

    Raises:
        StoreAwayError: the store is unavailable.
        StoreRefusedError: it refuses.
    """
    found = dict[str, Measured]()
    for layout, recipe, other in _alike(store, sweep, prepared):
        measured = _measured(store, layout, other, here)
        name = recipe.name
        if measured is not None and (name not in found or found[name].created < measured.created):
            found[name] = measured
    return found


def _alike(
    store: ObjectStore, sweep: RecipeSweep, prepared: PrepareResult
) -> Iterator[tuple[SweepLayout, Recipe, str]]:
    """Yield the finished runs of sweeps that train alike, with the recipe of this sweep that each is of."""
    written = {info.key: info for info in store.list(f"{SWEEPS}/")}
    model = model_identity(sweep.model, prepared)
    for layout, other, inputs in prepared_sweeps(store, written):
        if model is None or model_identity(other.model, inputs) != model or not _costs_alike(other, sweep):
            continue
        for recipe in sweep.recipes:
            same = [each.name for each in other.recipes if _unnamed(each) == _unnamed(recipe)]
            for run in (run_name(name, seed) for name in same for seed in other.seeds):
                if manifest_key(layout.train(run)) in written:
                    yield layout, recipe, run


def _costs_alike(one: RecipeSweep, other: RecipeSweep) -> bool:
    return one.engine == other.engine and all(
        getattr(one.training, name) == getattr(other.training, name) for name in _COSTS_TIME
    )


def _unnamed(recipe: Recipe) -> Mapping[str, object]:
    return {name: value for name, value in asdict(recipe).items() if name not in {"name", "title"}}


def _measured(store: ObjectStore, layout: SweepLayout, run: str, here: Here) -> Measured | None:
    try:
        manifest = read_manifest(store, layout.train(run))
    except PermanentError:
        return None
    result = result_of(manifest, TrainResult)
    if manifest is None or result is None or not here.is_alike(manifest, result):
        return None
    return Measured(
        tokens_per_second=result.tokens_per_second,
        peak_memory_bytes=result.peak_memory_bytes,
        run=run,
        sweep=f"{layout.name}/{layout.spec_hash}",
        created=manifest.created,
    )
