"""AdamW on one flat vector of fp32 master weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import get_scheduler

from surogate_bench.specs.training import TrainingSpec


class FlatAdamW:
    """AdamW with its learning-rate schedule and gradient clipping, on all trainable parameters at once.

    Parameters and gradients become views of one vector each. AdamW is elementwise and the gradient norm is global, so
    the results are the same, with a few kernels in total instead of several for each matrix.

    Args:
        parameters: fp32, all on one device; their data and gradients are replaced by views.
        training: Hyper-parameters.
        total_steps: Length of the schedule in optimizer steps.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], training: TrainingSpec, *, total_steps: int) -> None:
        self._flat = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        self._gradient = torch.zeros_like(self._flat.data)
        self._flat.grad = self._gradient
        self._max_norm = training.max_grad_norm
        start = 0
        for parameter in parameters:
            part = slice(start, start + parameter.numel())
            parameter.data = self._flat.data[part].view(parameter.shape)
            parameter.grad = self._gradient[part].view(parameter.shape)
            start += parameter.numel()
        self._adamw = torch.optim.AdamW(
            [self._flat],
            lr=training.learning_rate,
            betas=(training.adam_beta1, training.adam_beta2),
            eps=training.adam_epsilon,
            weight_decay=training.weight_decay,
            fused=True,
        )
        kind = "constant_with_warmup" if training.lr_scheduler == "constant" else training.lr_scheduler
        self._schedule = get_scheduler(
            kind, self._adamw, num_warmup_steps=training.warmup_steps, num_training_steps=total_steps
        )

    @property
    def gradient(self) -> Tensor:
        """All gradients: fp32, 1-dim; accumulated in place."""
        return self._gradient

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self._gradient.zero_()

    def step(self) -> float:
        """Clip the gradients, update the parameters and advance the schedule.

        Returns:
            The gradient norm before clipping.
        """
        norm = nn.utils.clip_grad_norm_([self._flat], self._max_norm)
        self._adamw.step()
        self._schedule.step()
        return float(norm)

    def state_dict(self) -> dict[str, Tensor]:
        """Return master weights and moments, not copied."""
        state = self._adamw.state.get(self._flat, {})
        zeros = torch.zeros_like(self._flat.data)
        return {
            "master": self._flat.data,
            "exp_avg": state.get("exp_avg", zeros),
            "exp_avg_sq": state.get("exp_avg_sq", zeros),
        }

    def load_state_dict(self, state: dict[str, Tensor], *, step: int) -> None:
        """Restore the state after ``step`` optimizer steps.

        Raises:
            RuntimeError: the state belongs to another model.
        """
        self._flat.data.copy_(state["master"])
        if step > 0:
            device = self._flat.device
            self._adamw.state[self._flat] = {
                "step": torch.tensor(float(step), device=device),
                "exp_avg": state["exp_avg"].to(device, copy=True),
                "exp_avg_sq": state["exp_avg_sq"].to(device, copy=True),
            }
        rate = self._schedule.base_lrs[0] * self._schedule.lr_lambdas[0](step)
        self._adamw.param_groups[0]["lr"] = rate
        position = {"last_epoch": step, "_step_count": step + 1, "_last_lr": [rate]}
        self._schedule.load_state_dict(self._schedule.state_dict() | position)
