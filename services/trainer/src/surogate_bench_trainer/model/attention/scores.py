"""Attention probabilities and their gradients: scaling, causality, sliding windows, soft-capping and sinks.

With s = scaling q k^T, a model may cap s to c tanh(s / c) (Gemma 2, arXiv:2408.00118), restrict a query to the last W
keys (sliding windows, arXiv:2310.06825), and add a learned logit per head to the softmax's denominator (attention
sinks, as in gpt-oss). The plain causal case performs exactly the same operations as without these features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """The score transformation of one layer."""

    scaling: float
    """Factor on q k^T."""
    window: int | None = None
    """Number of keys that a query attends to, including its own; all earlier ones if None."""
    softcap: float | None = None
    """Bound on the magnitude of scores, or None."""

    def for_length(self, length: int) -> "ScoreRule":
        """Return the rule for samples of at most ``length`` tokens, without a window that covers them anyway."""
        if self.window is None or self.window < length:
            return self
        return ScoreRule(self.scaling, None, self.softcap)

    def mask(self, length: int, dtype: torch.dtype) -> Tensor:
        """Return a (length, length) mask: 0 where a query (row) attends to a key (column), minus infinity elsewhere."""
        mask = torch.full((length, length), float("-inf"), dtype=dtype).triu_(1)
        if self.window is not None:
            mask += torch.full((length, length), float("-inf"), dtype=dtype).tril_(-self.window)
        return mask


class Probabilities(NamedTuple):
    """The output of the softmax, and the intermediate result that its backward pass needs."""

    weights: Tensor
    """(batch, rows, L); with sinks (batch, rows, L + 1), where the last column is the sink's."""
    capped: Tensor | None
    """tanh(s / c) of soft-capped scores, or None."""

    def for_keys(self, length: int) -> Tensor:
        """Return the weights of the values, (batch, rows, L)."""
        return self.weights if self.weights.shape[-1] == length else self.weights[..., :length]


def probabilities(query: Tensor, key: Tensor, rule: ScoreRule, sinks: Tensor | None) -> Probabilities:
    """Compute attention probabilities of padded samples.

    Args:
        query: (batch, rows, head size), rows = query heads per key head x L.
        key: (batch, L, head size).
        rule: Transformation of the scores.
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
        kept: Result of the forward pass.
        rule: The rule of the forward pass.

    Returns:
        The gradient of q k^T, (batch, rows, L), and that of the sinks, (batch, rows), or None without sinks.
    """
    gradient = outer @ value.transpose(1, 2)
    has_sinks = kept.weights.shape[-1] > gradient.shape[-1]
    if has_sinks:
        gradient = functional.pad(gradient, (0, 1))  # a sink has no value
    gradient = torch._softmax_backward_data(gradient, kept.weights, -1, kept.weights.dtype)
    sink_gradient = gradient[..., -1] if has_sinks else None
    score_gradient = gradient[..., :-1].contiguous() if has_sinks else gradient
    if kept.capped is not None:
        score_gradient = score_gradient * (1 - kept.capped.square())
    return score_gradient.mul_(rule.scaling), sink_gradient
