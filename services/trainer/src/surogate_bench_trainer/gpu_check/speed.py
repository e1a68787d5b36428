"""Optimizer steps of a randomly initialized model under every recipe, and a loop of Transformers and PEFT alone.

Speed and memory depend neither on the weights nor on the tokens. Samples are random tokens as long as GSM8K's, packed
as in the reference experiment; the plain loop pads the same samples to the longest of a micro-batch. Tokens are those
of samples.
"""

import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from surogate_bench.machine.checks import Comparison, compare
from surogate_bench.recipes import RECIPES, Recipe
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.training import TrainingSpec
from surogate_bench_trainer.data.batches import batches_of
from surogate_bench_trainer.data.encoding import Sample
from surogate_bench_trainer.data.schedule import BatchSchedule, schedule_batches
from surogate_bench_trainer.gpu_check.learners import random_learner, random_model, random_samples
from surogate_bench_trainer.gpu_check.markdown import PEAK_BYTES, PLAIN, TOKENS_PER_SECOND, WEIGHT_BYTES
from surogate_bench_trainer.gpu_check.recorder import Finding
from surogate_bench_trainer.gpu_check.settings import Setting, Shape, reference_sweep
from surogate_bench_trainer.model.loss import IGNORED
from surogate_bench_trainer.training.learner import Learner

UNIFORM = 0.05
"""Difference of the last loss from that of uniform predictions, ln(vocabulary): weights and tokens are random."""
RECIPES_DIFFER = 1e-2
"""Relative difference of the last losses of two recipes."""
LOOPS_DIFFER = 5e-3
"""The same of the bf16 recipe and the plain loop."""
_DRY = "no GPU: only the code has run, at a small shape"


@dataclass(frozen=True, slots=True)
class Timing:
    """Result of a timed run."""

    tokens_per_second: float
    """Median over the counted steps."""
    peak_memory_bytes: int
    """Allocated memory of the GPU; the process's resident set on a CPU."""
    losses: tuple[float, ...]
    """Loss of every step, in nats."""


def speed_checks(setting: Setting) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield name and check of every recipe, and of the plain loop."""
    sweep = reference_sweep(setting)
    samples = random_samples(int(setting.shape["vocab_size"]), setting.samples)
    losses: dict[str, float] = {}
    for recipe in RECIPES:
        yield recipe.name, partial(_recipe, recipe, sweep, samples, setting, losses)
    yield PLAIN, partial(_plain, sweep.training, samples, setting, losses)


def _recipe(
    recipe: Recipe, sweep: RecipeSweep, samples: Sequence[Sample], setting: Setting, losses: dict[str, float]
) -> Finding:
    start_measuring(setting.device)
    learner = random_learner(setting.shape, sweep, recipe, setting.device)
    timing = time_learner(learner, sweep.training, samples, steps=setting.steps, uncounted=setting.uncounted_steps)
    losses[recipe.name] = timing.losses[-1]
    comparisons = [_against_uniform(timing, setting.shape)]
    if recipe.name != "bf16" and "bf16" in losses:
        comparisons.append(_against("bf16's", timing, losses["bf16"], RECIPES_DIFFER))
    figures = _figures(timing) | {WEIGHT_BYTES: float(learner.recipe.weight_bytes)}
    return replace(_finding(comparisons, figures, timing, setting), engine=learner.recipe.engine_name)


def _plain(training: TrainingSpec, samples: Sequence[Sample], setting: Setting, losses: dict[str, float]) -> Finding:
    start_measuring(setting.device)
    loop = PlainLoop(setting.shape, training, setting.device)
    timing = time_plain(loop, samples, steps=setting.steps, uncounted=setting.uncounted_steps)
    comparisons = [_against_uniform(timing, setting.shape)]
    if "bf16" in losses:
        comparisons.append(_against("bf16's", timing, losses["bf16"], LOOPS_DIFFER))
    return replace(_finding(comparisons, _figures(timing), timing, setting), engine="Transformers + PEFT")


def _finding(comparisons: list[Comparison], figures: dict[str, float], timing: Timing, setting: Setting) -> Finding:
    return Finding(
        comparisons=tuple(comparisons),
        figures=figures,
        losses=timing.losses,
        not_run="" if setting.on_gpu else _DRY,
    )


def _against_uniform(timing: Timing, shape: Shape) -> Comparison:
    uniform = math.log(int(shape["vocab_size"]))
    return compare("last loss, relative difference from ln(vocabulary)", abs(timing.losses[-1] / uniform - 1), UNIFORM)


def _against(whose: str, timing: Timing, loss: float, limit: float) -> Comparison:
    return compare(f"last loss, relative difference from {whose}", abs(timing.losses[-1] / loss - 1), limit)


def _figures(timing: Timing) -> dict[str, float]:
    return {TOKENS_PER_SECOND: timing.tokens_per_second, PEAK_BYTES: float(timing.peak_memory_bytes)}


def start_measuring(device: torch.device) -> None:
    """Reset the peak memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the peak in bytes: allocated memory of a GPU, or the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_learner(
    learner: Learner, training: TrainingSpec, samples: Sequence[Sample], *, steps: int, uncounted: int
) -> Timing:
    """Time optimizer steps as the train stage runs them, collation of batches included."""
    schedule = _schedule(samples, training)

    def step(number: int) -> tuple[int, float]:
        batches = batches_of(samples, schedule.micro_batches(number), training.loss_on, learner.device)
        outcome = learner.train_step(batches, between=lambda: None)
        return outcome.tokens, outcome.loss

    return _time(step, learner.device, steps=steps, uncounted=uncounted)


def time_plain(loop: "PlainLoop", samples: Sequence[Sample], *, steps: int, uncounted: int) -> Timing:
    """Time optimizer steps of the plain loop on the same samples in the same order."""
    schedule = _schedule(samples, loop.training)

    def step(number: int) -> tuple[int, float]:
        rows = [[samples[index] for index in row] for row in schedule.micro_batches(number)]
        return sum(len(sample.tokens) for row in rows for sample in row), loop.step(rows)

    return _time(step, loop.device, steps=steps, uncounted=uncounted)


def _schedule(samples: Sequence[Sample], training: TrainingSpec) -> BatchSchedule:
    return schedule_batches([len(sample.tokens) for sample in samples], training, seed=0)


def _time(step: Callable[[int], tuple[int, float]], device: torch.device, *, steps: int, uncounted: int) -> Timing:
    speeds: list[float] = []
    losses: list[float] = []
    for number in range(steps):
        _synchronize(device)
        began = time.perf_counter()
        tokens, loss = step(number)
        _synchronize(device)
        losses.append(loss)
        if number >= uncounted:
            speeds.append(tokens / (time.perf_counter() - began))
    return Timing(statistics.median(speeds), peak_memory(device), tuple(losses))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PlainLoop:
    """A training loop over a Transformers model with PEFT's LoRA under autocast, on padded micro-batches.

    Args:
        shape: The model, which is randomly initialized.
        training: Settings of optimizer and LoRA.
        device: Device to train on.
    """

    def __init__(self, shape: Shape, training: TrainingSpec, device: torch.device) -> None:
        self.training = training
        self.device = device
        lora = LoraConfig(
            r=training.lora.r, lora_alpha=training.lora.alpha, target_modules=list(training.lora.target_modules)
        )
        self._model: nn.Module = get_peft_model(random_model(shape, device), lora).train()
        self._parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
        )

    def step(self, micro_batches: Sequence[Sequence[Sample]]) -> float:
        """Run one optimizer step, and return the mean of the micro-batches' losses."""
        total = 0.0
        for samples in micro_batches:
            ids, labels = _padded(samples, self.device)
            with torch.autocast(self.device.type, torch.bfloat16):
                result = self._model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels, use_cache=False)
            (result.loss / len(micro_batches)).backward()
            total += float(result.loss.detach()) / len(micro_batches)
        nn.utils.clip_grad_norm_(self._parameters, self.training.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return total


def _padded(samples: Sequence[Sample], device: torch.device) -> tuple[Tensor, Tensor]:
    """Make token ids and labels (samples, longest), padded with zeros and labels that do not count."""
    longest = max(len(sample.tokens) for sample in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED)
    for row, sample in enumerate(samples):
        length = len(sample.tokens)
        ids[row, :length] = torch.tensor(sample.tokens)
        labels[row, sample.prompt_length : length] = ids[row, sample.prompt_length : length]
    return ids.to(device), labels.to(device)
