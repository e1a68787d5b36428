"""A model with its adapters, recipe and optimizer: optimizer steps, validation, and their state."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor

from surogate_bench.errors import PermanentError
from surogate_bench.processes.service import Terminated
from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.model.passes import Passes, packed_loss, segments_for
from surogate_bench_trainer.model.recipe import AppliedRecipe
from surogate_bench_trainer.training.distributed.peers import ALONE, Peers
from surogate_bench_trainer.training.optimizer import FlatAdamW


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The result of one optimizer step."""

    loss: float
    """Mean over the step's counted tokens, in nats."""
    grad_norm: float
    """Global norm before clipping."""
    learning_rate: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A model with adapters, the recipe applied to it, and its optimizer."""

    model: PeftModel
    recipe: AppliedRecipe
    optimizer: FlatAdamW
    passes: Passes
    peers: Peers = ALONE
    """The processes that train the run together."""

    @property
    def device(self) -> torch.device:
        """The model's device."""
        device: torch.device = self.model.device
        return device

    def train_step(self, batches: Sequence[PackedBatch], *, between: Callable[[], None], step: int = 0) -> StepOutcome:
        """Run one optimizer step.

        Args:
            batches: The step's micro-batches, of all processes. All their counted tokens have equal weight.
            between: Called before each micro-batch except the first; may raise ``Terminated`` to abort the step.
            step: Number of the step from 0, for what several processes draw.

        Raises:
            PermanentError: the loss or the gradient norm is not finite.
            Terminated: ``between`` raised it, in this process or in another one.
        """
        self.model.train()
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        stopped = _stopped(lambda: self._accumulate(batches, total, step, between))
        loss = float(self.peers.total(total, stopped=stopped))
        self.peers.add(self.optimizer.gradient)
        rate = self.optimizer.learning_rate
        outcome = StepOutcome(loss, self.optimizer.step(), rate, sum(batch.tokens for batch in batches))
        for maximum in self.recipe.maxima:
            self.peers.largest(maximum)
        self.recipe.end_of_optimizer_step()
        if not (math.isfinite(outcome.loss) and math.isfinite(outcome.grad_norm)):
            raise PermanentError(
                f"training diverged: loss {outcome.loss}, gradient norm {outcome.grad_norm}. "
                "Lower training.learning_rate or lengthen training.warmup_steps"
            )
        return outcome

    def _accumulate(
        self, batches: Sequence[PackedBatch], total: Tensor, step: int, between: Callable[[], None]
    ) -> None:
        """Add gradients and loss of this process's micro-batches."""
        weight = 1.0 / sum(batch.counted for batch in batches)
        for number in self.peers.share(len(batches)):
            if number or self.peers.processes > 1:
                between()
            self.peers.restart_noise(self.recipe.session.generators, step=step, micro_batch=number)
            total += self.passes(batches[number], weight)

    def validate(self, batches: Sequence[PackedBatch], *, between: Callable[[], None]) -> float:
        """Return the validation loss in the recipe's precision; see :func:`validation_loss`.

        Raises:
            Terminated: ``between`` raised it, in this process or in another one.
        """
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        own = [batches[number] for number in self.peers.share(len(batches))]
        stopped = _stopped(lambda: sums.copy_(validation_sums(self.model, own, between=between)))
        total, counted = self.peers.total(sums, stopped=stopped)
        return float(total) / float(counted)

    def snapshot(self) -> dict[str, Tensor]:
        """Copy the complete state: master weights, moments, recipe, random generators."""
        parts = {"optimizer": self.optimizer.state_dict()} | self._volatile()
        return {f"{part}.{name}": tensor.clone() for part, state in parts.items() for name, tensor in state.items()}

    def volatile_snapshot(self) -> dict[str, Tensor]:
        """Copy the state that forward and backward passes change."""
        return {
            f"{part}.{name}": tensor.clone()
            for part, state in self._volatile().items()
            for name, tensor in state.items()
        }

    def restore(self, tensors: dict[str, Tensor], *, step: int) -> None:
        """Restore a snapshot taken after ``step`` optimizer steps."""
        parts: dict[str, dict[str, Tensor]] = {"optimizer": {}, "recipe": {}, "random": {}}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = tensor
        self.optimizer.load_state_dict(parts["optimizer"], step=step)
        self.recipe.load_state_dict(parts["recipe"])
        torch.set_rng_state(parts["random"]["cpu"].cpu())
        if "cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"]["cuda"].cpu(), self.device)

    def _volatile(self) -> dict[str, dict[str, Tensor]]:
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {"recipe": self.recipe.state_dict(), "random": random}


def _stopped(work: Callable[[], object]) -> bool:
    """Do some work, and return whether it was aborted by ``Terminated``."""
    try:
        work()
    except Terminated:
        return True
    return False


def validation_loss(model: PeftModel, batches: Iterable[PackedBatch], *, between: Callable[[], None]) -> float:
    """Return the mean loss (nats) over the counted tokens of all batches, without changing the training state.

    Args:
        model: The base model with its adapters; it stays in eval mode.
        batches: The validation split.
        between: Called before each batch; may raise to abort the validation.
    """
    total, counted = validation_sums(model, batches, between=between)
    return float(total) / float(counted)


@torch.no_grad()
def validation_sums(model: PeftModel, batches: Iterable[PackedBatch], *, between: Callable[[], None]) -> Tensor:
    """Return the summed loss (nats) of batches, and the number of their counted tokens: fp64 (2,); see above."""
    model.eval()
    total, counted = torch.zeros((), dtype=torch.float64, device=model.device), 0
    for batch in batches:
        between()
        total += packed_loss(model, batch, segments_for(model, batch.lengths), 1.0)
        counted += batch.counted
    return torch.stack((total, total.new_tensor(counted)))
