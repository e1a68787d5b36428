"""From queries and keys to attention probabilities, and back: scaling, causality, windows, soft-capping and sinks.

With s = scaling q k^T, a model may cap s to c tanh(s / c) (Gemma 2, arXiv:2408.00118), let a query see the last W keys
only (sliding windows, arXiv:2310.06825), and add a learned logit per head to the softmax's denominator (attention
sinks, as gpt-oss has them). The plain causal case takes exactly the operations it takes without these features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """What one layer does to its scores."""

    scaling: float
    """Factor on q k^T."""
    window: int | None = None
    """Keys that a query sees, itself included; all earlier ones if None."""
    softcap: float | None = None
    """Bound on the magnitude of scores; none if None."""

    def within(self, length: int) -> "ScoreRule":
        """The same rule for samples of at most so many tokens: a window that covers them is no window."""
        if self.window is None or self.window < length:
            return self
        return ScoreRule(self.scaling, None, self.softcap)

    def mask(self, length: int, dtype: torch.dtype) -> Tensor:
        """(length, length): 0 where a query (row) sees a key (column), minus infinity elsewhere."""
        mask = torch.full((length, length), float("-inf"), dtype=dtype).triu_(1)
        if self.window is not None:
            mask += torch.full((length, length), float("-inf"), dtype=dtype).tril_(-self.window)
        return mask


class Probabilities(NamedTuple):
    """The softmax's output, and what its backward pass needs beside it."""

    whole: Tensor
    """(batch, rows, L), or (batch, rows, L + 1) with a sink, whose share is the last column."""
    capped: Tensor | None
    """tanh(s / c) of soft-capped scores."""

    def of_keys(self, length: int) -> Tensor:
        """(batch, rows, L): the weights of the values."""
        return self.whole if self.whole.shape[-1] == length else self.whole[..., :length]


def probabilities(query: Tensor, key: Tensor, rule: ScoreRule, sinks: Tensor | None) -> Probabilities:
    """Compute attention probabilities of padded samples.

    Args:
        query: (batch, rows, head size), rows = query heads per key head x L.
        key: (batch, L, head size).
        rule: What is done to the scores.
        sinks: (batch, rows, 1), or None.
    """
    length = key.shape[1]
    mask = rule.mask(length, query.dtype).repeat(query.shape[1] // length, 1)
    capped = None
    if rule.softcap is None:
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=rule.scaling)
    else:
        capped = torch.bmm(query, key.transpose(1, 2)).mul_(rule.scaling / rule.softcap).tanh_()
        scores = torch.add(mask, capped, alpha=rule.softcap)
    if sinks is not None:
        scores = torch.cat((scores, sinks.to(scores.dtype)), dim=-1)
    return Probabilities(torch.softmax(scores, dim=-1), capped)


def score_gradients(outer: Tensor, value: Tensor, kept: Probabilities, rule: ScoreRule) -> tuple[Tensor, Tensor | None]:
    """Back-propagate through :func:`probabilities`.

    Args:
        outer: Gradient of the attended values, (batch, rows, head size).
        value: (batch, L, head size).
        kept: From the forward pass.
        rule: As there.

    Returns:
        Gradient of q k^T, (batch, rows, L); and that of the sinks, (batch, rows), if there are any.
    """
    gradient = outer @ value.transpose(1, 2)
    sinks = kept.whole.shape[-1] > gradient.shape[-1]
    if sinks:
        gradient = functional.pad(gradient, (0, 1))  # a sink has no value
    gradient = torch._softmax_backward_data(gradient, kept.whole, -1, kept.whole.dtype)
    of_sinks = gradient[..., -1] if sinks else None
    of_scores = gradient[..., :-1].contiguous() if sinks else gradient
    if kept.capped is not None:
        of_scores = of_scores * (1 - kept.capped.square())
    return of_scores.mul_(rule.scaling), of_sinks
