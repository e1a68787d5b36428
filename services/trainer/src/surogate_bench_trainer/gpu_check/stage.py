"""A whole train stage of the embedded model: its files, and on a GPU its losses against those of the CPU."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from surogate_bench.contract import METRICS_FILE
from surogate_bench.layout import run_name
from surogate_bench.machine.checks import compare
from surogate_bench.recipes import Recipe
from surogate_bench.results import MetricsLine, TrainResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest, TrainRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.gpu_check.cpu_reference import CpuReference
from surogate_bench_trainer.gpu_check.recorder import Finding, NotRun
from surogate_bench_trainer.gpu_check.settings import Setting, embedded_sweep
from surogate_bench_trainer.main import handle

FIRST_LOSS = 5e-3
"""Relative difference of the first losses, which only the order of sums causes. Two orders on a CPU: up to 1.7e-3."""
LOSSES = 2e-2
"""Largest relative difference of any step: optimizer steps amplify it. Two orders on a CPU: up to 4.9e-3."""
NOISY_LOSSES = 5e-2
"""The same where gradients are rounded stochastically, with other noise on each device. Two on a CPU: 1.6e-2."""
_STEPS_TO_LEARN = 20


def stage_checks(setting: Setting, reference: CpuReference | None) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield the checks of every recipe: that its stage completes, and that it learns as on a CPU.

    Args:
        setting: Its ``train_recipes`` are trained.
        reference: The CPU's losses; None on a CPU.
    """
    sweep = embedded_sweep(setting.train_steps)
    shutil.rmtree(_work_dir(setting), ignore_errors=True)  # of an interrupted run
    losses: dict[str, tuple[float, ...]] = {}
    for recipe in setting.train_recipes:
        yield stage_name(recipe), partial(_stage, recipe, sweep, setting, losses)
        yield f"{recipe}: losses against the CPU's", partial(_losses, sweep.recipe(recipe), losses, reference)


def stage_name(recipe: str) -> str:
    """Return the name of the check that has a recipe's losses."""
    return f"{recipe}: train stage"


def _stage(recipe: str, sweep: RecipeSweep, setting: Setting, losses: dict[str, tuple[float, ...]]) -> Finding:
    work_dir = _work_dir(setting)
    store = str(work_dir / "store")
    work_dir.mkdir(parents=True, exist_ok=True)
    handle(PrepareRequest(sweep=sweep, store=store), work_dir)
    request = TrainRequest(sweep=sweep, store=store, recipe=recipe, seed=0)
    handle(request, work_dir)
    found, recorded = _read(request)
    losses[recipe] = found
    steps = setting.train_steps
    comparisons = [
        compare("steps without a loss", float(steps - len(found)), 0.0),
        compare("steps missing in the result", float(steps - recorded), 0.0),
    ]
    if steps >= _STEPS_TO_LEARN:
        comparisons.append(compare("last five losses over the first five", sum(found[-5:]) / sum(found[:5]), 1.0))
    return Finding(comparisons=tuple(comparisons), losses=found)


def _work_dir(setting: Setting) -> Path:
    return setting.folder / "work"


def _read(request: TrainRequest) -> tuple[tuple[float, ...], int]:
    """Return the published losses, and the steps of the manifest."""
    store, prefix = open_store(request.store), request.layout.train(run_name(request.recipe, request.seed))
    manifest = read_manifest(store, prefix)
    if manifest is None:
        raise AssertionError("the stage has no manifest")
    lines = map(MetricsLine.model_validate_json, (store.get(f"{prefix}/{METRICS_FILE}") or b"").splitlines())
    losses = tuple(line.loss for line in lines if line.loss is not None)
    return losses, manifest.require_result(TrainResult).steps


def _losses(recipe: Recipe, losses: dict[str, tuple[float, ...]], reference: CpuReference | None) -> Finding:
    if reference is None:
        raise NotRun("no GPU: there is nothing to compare with the CPU")
    if recipe.name not in losses:
        raise NotRun("the train stage failed")
    expected = reference.losses(stage_name(recipe.name))
    differences = [abs(one / other - 1) for one, other in zip(losses[recipe.name], expected, strict=True)]
    limit = NOISY_LOSSES if recipe.is_stochastic else LOSSES
    return Finding(
        comparisons=(
            compare("relative difference of the first losses", differences[0], FIRST_LOSS),
            compare("largest relative difference", max(differences), limit),
        )
    )
