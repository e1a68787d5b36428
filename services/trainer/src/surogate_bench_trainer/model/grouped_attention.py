"""Attention over groups of padded samples, on a CPU."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from surogate_bench_quantization.cpu_products import has_bf16_products
from surogate_bench_trainer.model.attention_layout import Group
from surogate_bench_trainer.model.attention_scores import Probabilities, ScoreRule, probabilities, score_gradients

_Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Of queries, keys, values and sinks."""


class GroupedAttention(torch.autograd.Function):
    """softmax(rule(q k^T)) v, group by group, for rows of shape (T, heads, head size)."""

    @staticmethod
    def forward(  # noqa: D102, PLR0913, PLR0917 - torch decides
        ctx: Any,  # noqa: ANN401
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
            q, k, v = (tensor[group.part] for tensor in (query, key, value))
            if group.recomputed:
                attended[group.part] = _long(q, k, v, rule.within(q.shape[0]), sinks)
                saved += (q, k, v)
            else:
                attended[group.part], kept = _forward(q, k, v, group, rule.within(group.longest), sinks)
                saved += kept
        ctx.save_for_backward(sinks, *saved)
        ctx.groups, ctx.rule, ctx.kv_heads = groups, rule, key.shape[1]
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401, D102 - torch decides
        tokens, _, size = gradient.shape
        gradients = (
            torch.empty_like(gradient, memory_format=torch.contiguous_format),
            gradient.new_empty(tokens, ctx.kv_heads, size),
            gradient.new_empty(tokens, ctx.kv_heads, size),
        )
        sinks, *tensors = ctx.saved_tensors
        of_sinks = None if sinks is None else torch.zeros_like(sinks)
        saved = iter(tensors)
        for group in ctx.groups:
            parts: _Gradients
            if group.recomputed:
                q, k, v = next(saved), next(saved), next(saved)
                parts = _long_backward(q, k, v, gradient[group.part], ctx.rule.within(q.shape[0]), sinks)
            else:
                parts = _backward(saved, gradient[group.part], group, ctx.rule.within(group.longest))
            for whole, part in zip(gradients, parts[:3], strict=True):
                whole[group.part] = part
            if of_sinks is not None and parts[3] is not None:
                of_sinks += parts[3]
        return *gradients, of_sinks, None, None


def _forward(
    query: Tensor, key: Tensor, value: Tensor, group: Group, rule: ScoreRule, sinks: Tensor | None
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Attended rows; and padded q, k, v and the probabilities for :func:`_backward`."""
    q, k, v = group.queries.pad(query), group.keys.pad(key), group.keys.pad(value)
    # Query heads that share keys become more rows of one product.
    q = q.view(k.shape[0], -1, q.shape[-1])
    kept = probabilities(q, k, rule, _per_row(sinks, group.keys.heads, q))
    return group.queries.unpad(kept.of_keys(group.longest) @ v), (q, k, v, *kept)


def _backward(saved: Iterator[Tensor], gradient: Tensor, group: Group, rule: ScoreRule) -> _Gradients:
    q, k, v = next(saved), next(saved), next(saved)
    kept = Probabilities(next(saved), next(saved))
    size = q.shape[-1]
    outer = torch.zeros_like(q)  # padding has no gradient
    outer.view(-1, size).index_copy_(0, group.queries.scatter, gradient.reshape(-1, size))
    scores, of_sinks = score_gradients(outer, v, kept, rule)
    return (
        group.queries.unpad(scores @ k),
        group.keys.unpad(scores.transpose(1, 2) @ q),
        group.keys.unpad(kept.of_keys(group.longest).transpose(1, 2) @ outer),
        None if of_sinks is None else _per_head(of_sinks, group.keys.heads, group.longest),
    )


def _per_row(sinks: Tensor | None, kv_heads: int, query: Tensor) -> Tensor | None:
    """(heads,) to (batch, rows, 1) for queries (samples x kv heads, query heads per kv head x L, head size)."""
    if sinks is None:
        return None
    batch, rows, _ = query.shape
    heads_per_key = sinks.numel() // kv_heads
    by_row = sinks.view(kv_heads, heads_per_key, 1).expand(-1, -1, rows // heads_per_key).reshape(kv_heads, rows)
    return by_row.repeat(batch // kv_heads, 1).unsqueeze(-1)


def _per_head(rows: Tensor, kv_heads: int, length: int) -> Tensor:
    """Undo :func:`_per_row`, summing: (batch, rows) to (heads,)."""
    return rows.float().view(-1, kv_heads, rows.shape[1] // length, length).sum(dim=(0, 3)).flatten()


def _long(query: Tensor, key: Tensor, value: Tensor, rule: ScoreRule, sinks: Tensor | None) -> Tensor:
    """One long sample, of which no probabilities are kept."""
    if sinks is None and rule.window is None and rule.softcap is None:
        return _fused(query, key, value, rule.scaling)
    attended = torch.empty_like(query, memory_format=torch.contiguous_format)
    for heads, q, k, v, by_row in _by_kv_head(query, key, value, sinks):
        weights = probabilities(q, k, rule, by_row).of_keys(k.shape[1])
        attended[:, heads] = _rows(weights @ v, k.shape[1])
    return attended


def _long_backward(
    query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, rule: ScoreRule, sinks: Tensor | None
) -> _Gradients:
    if sinks is None and rule.window is None and rule.softcap is None:
        return (*_fused_backward(query, key, value, gradient, rule.scaling), None)
    gradients = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
    of_sinks = None if sinks is None else torch.zeros_like(sinks)
    length = query.shape[0]
    for index, (heads, q, k, v, by_row) in enumerate(_by_kv_head(query, key, value, sinks)):
        kept = probabilities(q, k, rule, by_row)
        outer = gradient[:, heads].transpose(0, 1).reshape(q.shape)
        scores, sink_rows = score_gradients(outer, v, kept, rule)
        gradients[0][:, heads] = _rows(scores @ k, length)
        gradients[1][:, index] = (scores.transpose(1, 2) @ q)[0]
        gradients[2][:, index] = (kept.of_keys(length).transpose(1, 2) @ outer)[0]
        if of_sinks is not None and sink_rows is not None:
            of_sinks[heads] = _per_head(sink_rows, 1, length).to(of_sinks.dtype)
    return (*gradients, of_sinks)


def _by_kv_head(
    query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor | None]]:
    """For each key head: its query heads; q (1, query heads x L, head size); k and v (1, L, head size); sinks."""
    shared = query.shape[1] // key.shape[1]
    for index in range(key.shape[1]):
        heads = slice(index * shared, (index + 1) * shared)
        q = query[:, heads].transpose(0, 1).reshape(1, -1, query.shape[-1])
        by_row = _per_row(None if sinks is None else sinks[heads], 1, q)
        yield heads, q, key[:, index].unsqueeze(0), value[:, index].unsqueeze(0), by_row


def _rows(attended: Tensor, length: int) -> Tensor:
    """(1, heads x L, head size) to (L, heads, head size)."""
    return attended.view(-1, length, attended.shape[-1]).transpose(0, 1)


def _fused(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """One long sample by SDPA, whose CPU kernel keeps no probabilities."""
    dtype = query.dtype if has_bf16_products() else torch.float32
    q, k, v = (tensor.to(dtype).transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
    attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    return attended.squeeze(0).transpose(0, 1).to(query.dtype)


def _fused_backward(
    query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (tensor.detach().requires_grad_() for tensor in (query, key, value))
    with torch.enable_grad():
        attended = _fused(q, k, v, scaling)
    of_q, of_k, of_v = torch.autograd.grad(attended, (q, k, v), gradient)
    return of_q, of_k, of_v
