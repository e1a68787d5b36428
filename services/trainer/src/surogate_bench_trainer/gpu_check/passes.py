"""CUDA graphs against plain passes, states that are resumed, and the noise of stochastic rounding."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from surogate_bench.machine.checks import Comparison, compare
from surogate_bench.recipes import RECIPES, Recipe
from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.gpu_check.learners import (
    distance,
    gradients,
    random_batch,
    random_learner,
    randomize_lora_b,
)
from surogate_bench_trainer.gpu_check.recorder import Finding, NotRun
from surogate_bench_trainer.gpu_check.settings import SMALL, Setting, embedded_sweep
from surogate_bench_trainer.model.captured_passes import CapturedPasses, padded, size_of
from surogate_bench_trainer.training.learner import Learner

LOSS = 1e-3
"""Relative difference of the losses of two runs that sum in other orders."""
NOISY_LOSS = 5e-3
"""The same where gradients are rounded with other noise."""
DIRECTION = 1e-3
"""The same of gradients: 1 minus the cosine of the angle between them."""
NOISE_REPEATS = 1e-5
"""The same of gradients with equal noise."""
_RESUMED_AFTER = 3


@dataclass(frozen=True, slots=True)
class _Step:
    loss: float
    gradient: Tensor


def pass_checks(setting: Setting) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield name and check of every recipe's passes."""
    kind = "captured" if setting.on_gpu else "plain"
    for recipe in RECIPES:
        yield f"{recipe.name}: captured against plain", partial(_captured, recipe, setting)
        yield f"{recipe.name}: state resumed, {kind} passes", partial(_resumed, recipe, setting)
    for recipe in RECIPES:
        if not recipe.is_stochastic:
            continue  # draws nothing
        yield f"{recipe.name}: new noise in every pass, {kind}", partial(_noise, recipe, setting)


def _captured(recipe: Recipe, setting: Setting) -> Finding:
    if not setting.on_gpu:
        raise NotRun("no GPU: CUDA graphs need one")
    batches = _batches(setting)
    plain = _run(_learner(recipe, setting, capture=False), batches, pad=True)
    learner = _learner(recipe, setting)
    captured = _run(learner, batches)
    assert isinstance(learner.passes, CapturedPasses)  # noqa: S101 - on a GPU
    loss, direction = LOSS, DIRECTION
    if learner.recipe.session.generators:  # graphs may draw in another order: no farther than another draw
        other = _learner(recipe, setting, capture=False)
        loss, direction = NOISY_LOSS, max(direction, distance(_draw(other, batches[0]), _draw(other, batches[0])))
    return Finding(
        comparisons=(
            *_compare(captured, plain, loss=loss, direction=direction),
            compare("sizes that were not captured", float(len(set(map(size_of, batches))) - learner.passes.graphs), 0),
        )
    )


def _resumed(recipe: Recipe, setting: Setting) -> Finding:
    batches = _batches(setting)
    first = _learner(recipe, setting)
    _run(first, batches[:_RESUMED_AFTER])
    state = first.snapshot()
    expected = _run(first, batches[_RESUMED_AFTER:])
    resumed = _learner(recipe, setting, seed=99)
    resumed.restore(state, step=_RESUMED_AFTER)
    # On a CPU every sum has one order; on a GPU atomic additions have not.
    loss, direction = (LOSS, DIRECTION) if setting.on_gpu else (0.0, 1e-12)
    return Finding(
        comparisons=tuple(_compare(_run(resumed, batches[_RESUMED_AFTER:]), expected, loss=loss, direction=direction))
    )


def _noise(recipe: Recipe, setting: Setting) -> Finding:
    learner = _learner(recipe, setting)
    batch = _batches(setting)[0]
    for _ in range(2):
        _draw(learner, batch)  # the second pass is captured
    state = learner.recipe.state_dict()
    draws = [_draw(learner, batch) for _ in range(3)]
    learner.recipe.load_state_dict(state)
    again = _draw(learner, batch)
    nearest = min(distance(draws[0], draws[1]), distance(draws[1], draws[2]))
    return Finding(
        comparisons=(
            compare("cosine of consecutive gradients", 1.0 - nearest, 1.0 - NOISE_REPEATS),
            compare("1 - cosine after the generator was restored", distance(again, draws[0]), NOISE_REPEATS / 2),
        )
    )


def _draw(learner: Learner, batch: PackedBatch) -> Tensor:
    """Return the gradients of one pass; it draws noise, and changes no parameter."""
    learner.model.train()
    learner.optimizer.zero_grad()
    learner.passes(batch, 1 / batch.counted)
    return gradients(learner)


def _learner(recipe: Recipe, setting: Setting, *, capture: bool = True, seed: int = 0) -> Learner:
    learner = random_learner(SMALL, embedded_sweep(8), recipe, setting.device, seed=seed, capture=capture)
    randomize_lora_b(learner)
    return learner


def _batches(setting: Setting) -> list[PackedBatch]:
    return [random_batch(lengths, SMALL, setting.device) for lengths in setting.lengths]


def _run(learner: Learner, batches: list[PackedBatch], *, pad: bool = False) -> list[_Step]:
    """Run an optimizer step on each batch; ``pad``: to the sizes of graphs, so that as much noise is drawn."""
    steps = []
    for batch in batches:
        learner.model.train()
        learner.optimizer.zero_grad()
        loss = float(learner.passes(padded(batch, size_of(batch)) if pad else batch, 1 / batch.counted))
        gradient = gradients(learner)
        learner.optimizer.step()
        learner.recipe.end_of_optimizer_step()
        steps.append(_Step(loss, gradient))
    return steps


def _compare(found: list[_Step], expected: list[_Step], *, loss: float, direction: float) -> Iterator[Comparison]:
    pairs = list(zip(found, expected, strict=True))
    losses = [abs(one.loss - other.loss) / abs(other.loss) for one, other in pairs]
    angles = [distance(one.gradient, other.gradient) for one, other in pairs]
    norms = [abs(float(one.gradient.norm() / other.gradient.norm()) - 1) for one, other in pairs]
    yield compare("largest relative difference of losses", max(losses), loss)
    yield compare("largest 1 - cosine of gradients", max(angles), direction)
    yield compare("largest relative difference of gradient norms", max(norms), math.sqrt(direction))
