"""The training loop: the order of steps, validations and checkpoints, which can be resumed after any interruption."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from surogate_bench.errors import PermanentError
from surogate_bench.processes.progress import Activity, Progress
from surogate_bench.processes.service import Terminated
from surogate_bench.results import MetricsLine
from surogate_bench.specs.training import TrainingSpec
from surogate_bench_trainer.data.batches import PackedBatch, batches_of
from surogate_bench_trainer.data.encoding import Sample
from surogate_bench_trainer.data.schedule import BatchSchedule
from surogate_bench_trainer.training.interruption import HeldSignals
from surogate_bench_trainer.training.learner import Learner
from surogate_bench_trainer.training.metrics import MetricsLog

_log = logging.getLogger(__name__)

SaveCheckpoint = Callable[[int, dict[str, Tensor]], None]
"""Stores the state after the given number of steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLoop:
    """The loop of one run."""

    learner: Learner
    training: TrainingSpec
    schedule: BatchSchedule
    samples: Sequence[Sample]
    validation: Sequence[PackedBatch]
    metrics: MetricsLog
    save: SaveCheckpoint
    report: Callable[[Progress], None]

    def run(self, first: int) -> None:
        """Train from the state after ``first`` steps to the last step.

        Signals are handled between micro-batches: the state before the interrupted step, or after it if only its
        validation is missing, is stored as a checkpoint.

        Raises:
            Terminated: SIGTERM or SIGINT arrived, and the checkpoint is stored.
            PermanentError: training diverged.
        """
        with HeldSignals() as signals:
            if self._validation_due(first) and first not in {point.step for point in self.metrics.validations()}:
                self._validate(first, signals)
            for step in range(first, self.schedule.total_steps):
                self._step(step, signals)
                if self._validation_due(step + 1):
                    self._validate(step + 1, signals)
                if (step + 1) % self.training.checkpoint_steps == 0 and step + 1 < self.schedule.total_steps:
                    self.save(step + 1, self.learner.snapshot())

    def _validation_due(self, done: int) -> bool:
        return done > 0 and (done % self.training.eval_steps == 0 or done == self.schedule.total_steps)

    def _step(self, step: int, signals: HeldSignals) -> None:
        if self.learner.peers.processes == 1:  # several agree within the step
            self._stop_if_signalled(signals, step)
        began = time.perf_counter()
        micro_batches = self.schedule.micro_batches(step)
        batches = batches_of(self.samples, micro_batches, self.training.loss_on, self.learner.device)
        before = self.learner.volatile_snapshot() if len(batches) > 1 or self.learner.peers.processes > 1 else {}
        try:
            outcome = self.learner.train_step(batches, between=signals.check, step=step)
        except Terminated:
            self.save(step, self.learner.snapshot() | before)
            raise
        except PermanentError as error:
            raise PermanentError(f"step {step + 1}: {error}") from error
        line = MetricsLine(
            step=step + 1,
            loss=outcome.loss,
            learning_rate=outcome.learning_rate,
            grad_norm=outcome.grad_norm,
            tokens=outcome.tokens,
            seconds=round(time.perf_counter() - began, 6),
        )
        self.metrics.append(line)
        self._report(Activity.TRAINING, step + 1, outcome.loss)

    def _validate(self, done: int, signals: HeldSignals) -> None:
        self._report(Activity.VALIDATING, done, None)
        try:
            loss = self.learner.validate(self.validation, between=signals.check)
        except Terminated:
            self.save(done, self.learner.snapshot())
            raise
        if not math.isfinite(loss):
            raise PermanentError(f"step {done}: the validation loss is {loss}. Lower training.learning_rate")
        self.metrics.append(MetricsLine(step=done, eval_loss=loss))
        _log.info(
            "step %d of %d",
            done,
            self.schedule.total_steps,
            extra={
                "loss": self.metrics.final_train_loss(),
                "validation_loss": loss,
                "tokens_per_second": self.metrics.recent_speed(),
            },
        )

    def _stop_if_signalled(self, signals: HeldSignals, done: int) -> None:
        try:
            signals.check()
        except Terminated:
            if done:
                self.save(done, self.learner.snapshot())
            raise

    def _report(self, phase: Activity, step: int, loss: float | None) -> None:
        total = self.schedule.total_steps
        speed = self.metrics.recent_speed()
        self.report(Progress(phase=phase, step=step, total=total, loss=loss, tokens_per_second=speed))
