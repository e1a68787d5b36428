"""Attention over groups of padded samples on a CPU."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from surogate_bench_quantization.cpu_products import has_bf16_products
from surogate_bench_trainer.model.attention.layout import Group
from surogate_bench_trainer.model.attention.scores import Probabilities, ScoreRule, probabilities, score_gradients

_Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Gradients of queries, keys, values and sinks."""


class GroupedAttention(torch.autograd.Function):
    """softmax(rule(q k^T)) v, group by group, for rows of shape (T, heads, head size)."""

    @staticmethod
    @override
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
        groups: tuple[Group, ...],
        rule: ScoreRule,
    ) -> Tensor:
        attended = torch.empty_like(query, memory_format=torch.contiguous_format)
        saved: list[Tensor | None] = []
        for group in groups:
            q, k, v = (tensor[group.tokens] for tensor in (query, key, value))
            if group.recomputed:
                attended[group.tokens] = _attend_long(q, k, v, rule.for_length(q.shape[0]), sinks)
                saved += (q, k, v)
            else:
                attended[group.tokens], kept = _forward(q, k, v, group, rule.for_length(group.longest), sinks)
                saved += kept
        ctx.save_for_backward(sinks, *saved)
        ctx.groups, ctx.rule, ctx.kv_heads = groups, rule, key.shape[1]
        return attended

    @staticmethod
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, _, size = gradient.shape
        gradients = (
            torch.empty_like(gradient, memory_format=torch.contiguous_format),
            gradient.new_empty(tokens, ctx.kv_heads, size),
            gradient.new_empty(tokens, ctx.kv_heads, size),
        )
        sinks, *tensors = ctx.saved_tensors
        sink_gradient = None if sinks is None else torch.zeros_like(sinks)
        saved = iter(tensors)
        for group in ctx.groups:
            parts: _Gradients
            if group.recomputed:
                q, k, v = next(saved), next(saved), next(saved)
                parts = _attend_long_backward(q, k, v, gradient[group.tokens], ctx.rule.for_length(q.shape[0]), sinks)
            else:
                parts = _backward(saved, gradient[group.tokens], group, ctx.rule.for_length(group.longest))
            for whole, part in zip(gradients, parts[:3], strict=True):
                whole[group.tokens] = part
            if sink_gradient is not None and parts[3] is not None:
                sink_gradient += parts[3]
        return *gradients, sink_gradient, None, None


def _forward(
    query: Tensor, key: Tensor, value: Tensor, group: Group, rule: ScoreRule, sinks: Tensor | None
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Return attended rows, and for :func:`_backward` padded q, k, v and the probabilities."""
    q, k, v = group.queries.pad(query), group.keys.pad(key), group.keys.pad(value)
    # Query heads that share keys become further rows of one product.
    q = q.view(k.shape[0], -1, q.shape[-1])
    kept = probabilities(q, k, rule, _sinks_per_row(sinks, group.keys.heads, q))
    return group.queries.unpad(kept.for_keys(group.longest) @ v), (q, k, v, *kept)


def _backward(saved: Iterator[Tensor], gradient: Tensor, group: Group, rule: ScoreRule) -> _Gradients:
    q, k, v = next(saved), next(saved), next(saved)
    kept = Probabilities(next(saved), next(saved))
    size = q.shape[-1]
    outer = torch.zeros_like(q)  # padding has no gradient
    outer.view(-1, size).index_copy_(0, group.queries.scatter, gradient.reshape(-1, size))
    scores, sink_gradient = score_gradients(outer, v, kept, rule)
    return (
        group.queries.unpad(scores @ k),
        group.keys.unpad(scores.transpose(1, 2) @ q),
        group.keys.unpad(kept.for_keys(group.longest).transpose(1, 2) @ outer),
        None if sink_gradient is None else _sum_per_head(sink_gradient, group.keys.heads, group.longest),
    )


def _sinks_per_row(sinks: Tensor | None, kv_heads: int, query: Tensor) -> Tensor | None:
    """Expand (heads,) to (batch, rows, 1) for queries (samples x kv heads, query heads per kv head x L, head size)."""
    if sinks is None:
        return None
    batch, rows, _ = query.shape
    heads_per_key = sinks.numel() // kv_heads
    by_row = sinks.view(kv_heads, heads_per_key, 1).expand(-1, -1, rows // heads_per_key).reshape(kv_heads, rows)
    return by_row.repeat(batch // kv_heads, 1).unsqueeze(-1)


def _sum_per_head(rows: Tensor, kv_heads: int, length: int) -> Tensor:
    """Sum (batch, rows), laid out as in :func:`_sinks_per_row`, to (heads,)."""
    return rows.float().view(-1, kv_heads, rows.shape[1] // length, length).sum(dim=(0, 3)).flatten()


def _attend_long(query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule, sinks: Tensor | None) -> Tensor:
    """Attend to one long sample without keeping its probabilities."""
    if sinks is None and rule.window is None and rule.softcap is None:
        return _sdpa(query, key, value, rule.scaling)
    attended = torch.empty_like(query, memory_format=torch.contiguous_format)
    for heads, q, k, v, by_row in _by_kv_head(query, key, value, sinks):
        weights = probabilities(q, k, rule, by_row).for_keys(k.shape[1])
        attended[:, heads] = _heads_last(weights @ v, k.shape[1])
    return attended


def _attend_long_backward(
    query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, rule: ScoreRule, sinks: Tensor | None
) -> _Gradients:
    if sinks is None and rule.window is None and rule.softcap is None:
        return (*_sdpa_backward(query, key, value, gradient, rule.scaling), None)
    gradients = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
    sink_gradient = None if sinks is None else torch.zeros_like(sinks)
    length = query.shape[0]
    for index, (heads, q, k, v, by_row) in enumerate(_by_kv_head(query, key, value, sinks)):
        kept = probabilities(q, k, rule, by_row)
        outer = gradient[:, heads].transpose(0, 1).reshape(q.shape)
        scores, sink_rows = score_gradients(outer, v, kept, rule)
        gradients[0][:, heads] = _heads_last(scores @ k, length)
        gradients[1][:, index] = (scores.transpose(1, 2) @ q)[0]
        gradients[2][:, index] = (kept.for_keys(length).transpose(1, 2) @ outer)[0]
        if sink_gradient is not None and sink_rows is not None:
            sink_gradient[heads] = _sum_per_head(sink_rows, 1, length).to(sink_gradient.dtype)
    return (*gradients, sink_gradient)


def _by_kv_head(
    query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor | None]]:
    """Yield for each key head: its query heads, q (1, query heads x L, head size), k and v (1, L, head size), sinks."""
    shared = query.shape[1] // key.shape[1]
    for index in range(key.shape[1]):
        heads = slice(index * shared, (index + 1) * shared)
        q = query[:, heads].transpose(0, 1).reshape(1, -1, query.shape[-1])
        by_row = _sinks_per_row(None if sinks is None else sinks[heads], 1, q)
        yield heads, q, key[:, index].unsqueeze(0), value[:, index].unsqueeze(0), by_row


def _heads_last(attended: Tensor, length: int) -> Tensor:
    """Reshape (1, heads x L, head size) to (L, heads, head size)."""
    return attended.view(-1, length, attended.shape[-1]).transpose(0, 1)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attend to one long sample by SDPA, whose CPU kernel keeps no probabilities."""
    dtype = query.dtype if has_bf16_products() else torch.float32
    q, k, v = (tensor.to(dtype).transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
    attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    return attended.squeeze(0).transpose(0, 1).to(query.dtype)


def _sdpa_backward(
    query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (tensor.detach().requires_grad_() for tensor in (query, key, value))
    with torch.enable_grad():
        attended = _sdpa(q, k, v, scaling)
    of_q, of_k, of_v = torch.autograd.grad(attended, (q, k, v), gradient)
    return of_q, of_k, of_v
