"""Cross-entropy of the tokens that count in the loss."""

from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""Target of a row that does not count in the loss."""

_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Logits that are cast to fp32 at a time: as many as a CPU's cache holds, or as keep a GPU busy (256 MiB)."""


class _CrossEntropy(torch.autograd.Function):
    """Weighted sum over rows of -log softmax(logits)[target] in fp32; the forward pass also computes the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, weight: Tensor | float) -> Tensor:  # noqa: ANN401
        keep = ctx.needs_input_grad[0]
        gradient = torch.empty_like(logits) if keep else None
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        rows = max(1, _CHUNK[logits.device.type] // logits.shape[1])
        for start in range(0, logits.shape[0], rows):
            part = slice(start, start + rows)
            log_probabilities = torch.log_softmax(logits[part].float(), dim=-1)
            counts = (targets[part, None] != IGNORED).to(torch.float32)
            index = targets[part, None].clamp_min(0)
            total -= log_probabilities.gather(1, index).mul_(counts).sum()
            if gradient is not None:
                probabilities = log_probabilities.exp_()
                probabilities.scatter_add_(1, index, probabilities.new_full(index.shape, -1.0))
                gradient[part] = probabilities.mul_(counts * weight)
        ctx.gradient = gradient
        return total.mul_(weight)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return ctx.gradient * scale.to(ctx.gradient.dtype), None, None


def cross_entropy(logits: Tensor, targets: Tensor, *, weight: Tensor | float) -> Tensor:
    """Return the loss in nats, summed over rows and multiplied by ``weight``: an fp32 scalar.

    The gradient is computed in fp32 and rounded once to the type of the logits.

    Args:
        logits: (rows, vocabulary), any float type.
        targets: int64 (rows,); rows whose target is ``IGNORED`` do not count.
        weight: A number or 0-dim fp32; 1 / counted tokens of the whole optimizer step gives their mean.
    """
    loss: Tensor = _CrossEntropy.apply(logits, targets, weight)  # type: ignore[no-untyped-call]
    return loss
