"""A model with its adapters, recipe and optimizer: optimizer steps, validation, and their state."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor

from surogate_bench.errors import PermanentError
from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.model.passes import Passes, packed_loss, segments_for
from surogate_bench_trainer.model.recipe import AppliedRecipe
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

    @property
    def device(self) -> torch.device:
        """The model's device."""
        device: torch.device = self.model.device
        return device

    def train_step(self, batches: Sequence[PackedBatch], *, between: Callable[[], None]) -> StepOutcome:
        """Run one optimizer step.

        Args:
            batches: The step's micro-batches. All their counted tokens have equal weight.
            between: Called before each micro-batch except the first; may raise to abort the step.

        Raises:
            PermanentError: the loss or the gradient norm is not finite.
        """
        self.model.train()
        self.optimizer.zero_grad()
        weight = 1.0 / sum(batch.counted for batch in batches)
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches):
            if number:
                between()
            total += self.passes(batch, weight)
        rate = self.optimizer.learning_rate
        outcome = StepOutcome(float(total), self.optimizer.step(), rate, sum(batch.tokens for batch in batches))
        self.recipe.end_of_optimizer_step()
        if not (math.isfinite(outcome.loss) and math.isfinite(outcome.grad_norm)):
            raise PermanentError(
                f"training diverged: loss {outcome.loss}, gradient norm {outcome.grad_norm}. "
                "Lower training.learning_rate or lengthen training.warmup_steps"
            )
        return outcome

    def validate(self, batches: Iterable[PackedBatch], *, between: Callable[[], None]) -> float:
        """Return the validation loss in the recipe's precision; see :func:`validation_loss`."""
        return validation_loss(self.model, batches, between=between)

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


@torch.no_grad()
def validation_loss(model: PeftModel, batches: Iterable[PackedBatch], *, between: Callable[[], None]) -> float:
    """Return the mean loss (nats) over the counted tokens of all batches, without changing the training state.

    Args:
        model: The base model with its adapters; it stays in eval mode.
        batches: The validation split.
        between: Called before each batch; may raise to abort the validation.
    """
    model.eval()
    total, counted = torch.zeros((), dtype=torch.float64, device=model.device), 0
    for batch in batches:
        between()
        total += packed_loss(model, batch, segments_for(model, batch.lengths), 1.0)
        counted += batch.counted
    return float(total) / counted
