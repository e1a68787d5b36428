"""The samples of every optimizer step as a pure function of the step, so that resuming needs no reader state."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from surogate_bench.specs.training import TrainingSpec
from surogate_bench_trainer.data.packing import pack


@dataclass(frozen=True, slots=True)
class BatchSchedule:
    """The batches of a training run. Rows are fixed, and shuffled in each epoch."""

    rows: list[list[int]]
    """Sample indices of each row."""
    rows_per_micro_batch: int
    micro_batches_per_step: int
    total_steps: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; the last one may have fewer rows."""
        return math.ceil(len(self.rows) / (self.rows_per_micro_batch * self.micro_batches_per_step))

    def micro_batches(self, step: int) -> list[list[int]]:
        """Return the sample indices of each micro-batch of a step (counted from 0)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        per_step = self.rows_per_micro_batch * self.micro_batches_per_step
        chosen = self._order(epoch)[position * per_step : (position + 1) * per_step]
        return [
            [index for row in chosen[start : start + self.rows_per_micro_batch] for index in self.rows[row]]
            for start in range(0, len(chosen), self.rows_per_micro_batch)
        ]

    def uses(self) -> list[int]:
        """Return how often the whole training uses each row."""
        epochs, steps = divmod(self.total_steps, self.steps_per_epoch)
        uses = np.full(len(self.rows), epochs)
        uses[self._order(epochs)[: steps * self.rows_per_micro_batch * self.micro_batches_per_step]] += 1
        return [int(count) for count in uses]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the rows in an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))


def schedule_batches(lengths: Sequence[int], training: TrainingSpec, *, seed: int) -> BatchSchedule:
    """Compute the schedule of a training run.

    Args:
        lengths: Tokens of each training sample.
        training: Packing, batch sizes and length of the run.
        seed: Seed of the order of samples and rows.
    """
    if training.packing:
        order = np.random.default_rng(seed).permutation(len(lengths))
        packed = pack([lengths[index] for index in order], training.max_length)
        rows = [[int(order[index]) for index in row] for row in packed]
    else:
        rows = [[index] for index in range(len(lengths))]
    schedule = BatchSchedule(
        rows, training.micro_batch_size, training.gradient_accumulation_steps, training.max_steps or 0, seed
    )
    if training.epochs is None:
        return schedule
    return replace(schedule, total_steps=math.ceil(training.epochs * schedule.steps_per_epoch))
