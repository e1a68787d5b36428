"""Causal attention within each sample of a packed stream, never across samples.

Registered with transformers as ``packed_segments``; the stream's layout arrives as the keyword ``segments``, which
transformers hands through from the model's ``forward``. On CPU, samples of about one length form groups that are
gathered into padded batches (causality alone keeps real tokens from seeing the padding behind them), so no T x T mask
or score matrix ever exists; batched matrix products in bf16 beat PyTorch's CPU flash attention several times over in
the backward pass. On CUDA, ``varlen_attn`` takes the stream as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from surogate_bench_trainer.cpu_products import has_bf16_products

IMPLEMENTATION = "packed_segments"
"""Value of ``attn_implementation``."""

_GROUP_SCORES = 1 << 19
"""Scores (heads x L x L over the group) that fit the cache; more samples than that are not batched together."""
_MULTIPLE = 32
"""Padded lengths are multiples of this: softmax over bf16 rows of other lengths is half as fast."""
_LONG = 1024
"""From this length on, a sample's probabilities are not kept for the backward pass: SDPA recomputes them."""


@dataclass(frozen=True, slots=True)
class _Side:
    """How rows of one head each are gathered from a group's part of the stream into a padded batch, and back."""

    heads: int
    longest: int
    gather: Tensor
    """int64: for every padded row (sample, head, place), the stream row to copy; its sample's first where it pads."""
    scatter: Tensor
    """int64: for every stream row, its place in the padded batch."""

    def pad(self, rows: Tensor) -> Tensor:
        """(tokens, heads, head size) to (samples x heads, longest, head size)."""
        size = rows.shape[-1]
        return rows.reshape(-1, size).index_select(0, self.gather).view(-1, self.longest, size)

    def unpad(self, padded: Tensor) -> Tensor:
        """Back to (tokens, heads, head size), from any shape with the same order of rows."""
        size = padded.shape[-1]
        return padded.view(-1, size).index_select(0, self.scatter).view(-1, self.heads, size)


@dataclass(frozen=True, slots=True)
class _Group:
    """Consecutive samples of the stream that are computed together."""

    part: slice
    """Their tokens."""
    longest: int
    """Padded length."""
    queries: _Side
    keys: _Side

    @property
    def recomputed(self) -> bool:
        """Whether probabilities are made again in the backward pass; such a group is one long sample."""
        return self.longest >= _LONG


@dataclass(frozen=True, slots=True)
class Segments:
    """The layout of one packed stream, prepared once and used by every layer."""

    lengths: tuple[int, ...]
    groups: tuple[_Group, ...]
    """For CPU."""
    offsets: Tensor
    """int32 (samples + 1,): where each sample starts, and the end; for CUDA."""


def segments_of(lengths: Sequence[int], *, heads: int, kv_heads: int, device: torch.device) -> Segments:
    """Prepare the layout of a stream of samples; those of about one length are best side by side.

    Args:
        lengths: Tokens of each sample.
        heads: Query heads of the model.
        kv_heads: Key-value heads of the model.
        device: Where the model is.
    """
    offsets = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
    groups: list[_Group] = []
    if device.type == "cpu":
        first, index = 0, 0
        while index < len(lengths):
            count = _group_size(lengths[index:], heads)
            group = _group(first, lengths[index : index + count], heads, kv_heads)
            groups.append(group)
            first, index = group.part.stop, index + count
    return Segments(tuple(lengths), tuple(groups), offsets)


def _group_size(lengths: Sequence[int], heads: int) -> int:
    longest = _padded(lengths[0])
    if longest >= _LONG:
        return 1
    fitting = max(1, _GROUP_SCORES // (heads * longest**2))
    alike = next((index for index, length in enumerate(lengths) if _padded(length) != longest), len(lengths))
    return min(fitting, alike)


def _padded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def _group(first: int, lengths: Sequence[int], heads: int, kv_heads: int) -> _Group:
    longest = _padded(lengths[0])
    sizes = torch.tensor(lengths)
    places = torch.arange(longest).expand(len(lengths), longest)
    starts = sizes.cumsum(0) - sizes
    real = places < sizes[:, None]
    token = torch.where(real, starts[:, None] + places, starts[:, None])  # (samples, longest)
    sample_of, place_of = real.nonzero(as_tuple=True)

    def side(total_heads: int) -> _Side:
        head = torch.arange(total_heads)
        gather = token[:, None, :] * total_heads + head[:, None]
        scatter = (sample_of[:, None] * total_heads + head) * longest + place_of[:, None]
        return _Side(total_heads, longest, gather.flatten(), scatter.flatten())

    return _Group(slice(first, first + sum(lengths)), longest, side(heads), side(kv_heads))


class _PackedAttention(torch.autograd.Function):
    """softmax(scaling q k^T + causal mask) v, group by group, for rows of shape (T, heads, head size)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        query: Tensor,
        key: Tensor,
        value: Tensor,
        groups: tuple[_Group, ...],
        scaling: float,
    ) -> Tensor:
        attended = torch.empty_like(query, memory_format=torch.contiguous_format)
        saved: list[Tensor] = []
        for group in groups:
            q, k, v = (tensor[group.part] for tensor in (query, key, value))
            if group.recomputed:
                attended[group.part] = _fused(q, k, v, scaling)
                saved += (q, k, v)
            else:
                attended[group.part], kept = _forward(q, k, v, group, scaling)
                saved += kept
        ctx.save_for_backward(*saved)
        ctx.groups, ctx.scaling, ctx.kv_heads = groups, scaling, key.shape[1]
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # noqa: ANN401
        tokens, _, size = gradient.shape
        gradients = (
            torch.empty_like(gradient, memory_format=torch.contiguous_format),
            gradient.new_empty(tokens, ctx.kv_heads, size),
            gradient.new_empty(tokens, ctx.kv_heads, size),
        )
        saved = iter(ctx.saved_tensors)
        for group in ctx.groups:
            if group.recomputed:
                parts = _fused_backward(next(saved), next(saved), next(saved), gradient[group.part], ctx.scaling)
            else:
                kept = (next(saved), next(saved), next(saved), next(saved))
                parts = _backward(kept, gradient[group.part], group, ctx.scaling)
            for whole, part in zip(gradients, parts, strict=True):
                whole[group.part] = part
        return *gradients, None, None


_Kept: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Padded q, k, v, and the probabilities."""


def _forward(query: Tensor, key: Tensor, value: Tensor, group: _Group, scaling: float) -> tuple[Tensor, _Kept]:
    q, k, v = group.queries.pad(query), group.keys.pad(key), group.keys.pad(value)
    # Query heads that share keys become more rows of one product.
    q = q.view(k.shape[0], -1, q.shape[-1])
    mask = torch.full((group.longest, group.longest), float("-inf"), dtype=q.dtype).triu_(1)
    mask = mask.repeat(q.shape[1] // group.longest, 1)
    weights = torch.softmax(torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scaling), dim=-1)
    return group.queries.unpad(weights @ v), (q, k, v, weights)


def _backward(kept: _Kept, gradient: Tensor, group: _Group, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, weights = kept
    size = q.shape[-1]
    outer = torch.zeros_like(q)  # padding has no gradient
    outer.view(-1, size).index_copy_(0, group.queries.scatter, gradient.reshape(-1, size))
    scores = torch._softmax_backward_data(outer @ v.transpose(1, 2), weights, -1, weights.dtype).mul_(scaling)
    return (
        group.queries.unpad(scores @ k),
        group.keys.unpad(scores.transpose(1, 2) @ q),
        group.keys.unpad(weights.transpose(1, 2) @ outer),
    )


def _fused(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """One long sample by SDPA, whose CPU kernel keeps no probabilities."""
    dtype = query.dtype if has_bf16_products() else torch.float32
    q, k, v = (tensor.to(dtype).transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
    attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    return attended.squeeze(0).transpose(0, 1).to(query.dtype)


def _fused_backward(query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, scaling: float) -> tuple[Tensor, ...]:
    q, k, v = (tensor.detach().requires_grad_() for tensor in (query, key, value))
    with torch.enable_grad():
        attended = _fused(q, k, v, scaling)
    return torch.autograd.grad(attended, (q, k, v), gradient)


def packed_attention(  # noqa: PLR0913 - transformers decides
    module: nn.Module,  # noqa: ARG001 - transformers decides
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Segments,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,  # noqa: ANN401 - whatever else the model passes on
) -> tuple[Tensor, None]:
    """Attend within samples, in the form that transformers' ``AttentionInterface`` asks for.

    Args:
        module: The attention layer; unused.
        query: (1, heads, T, head size).
        key: (1, kv heads, T, head size).
        value: As ``key``.
        attention_mask: None: transformers makes no mask for an implementation it does not know.
        segments: Layout of the stream.
        scaling: Factor on the scores.
        dropout: 0; what models have been pre-trained with lately.

    Returns:
        (1, T, heads, head size), and None for the weights.

    Raises:
        ValueError: a mask or dropout is asked for.
    """
    if attention_mask is not None or dropout:
        raise ValueError("packed attention knows neither masks nor dropout")
    q, k, v = (tensor.transpose(1, 2).squeeze(0) for tensor in (query, key, value))  # (T, heads, head size)
    attended: Tensor
    if query.is_cuda:
        attended = _on_cuda(q, k, v, segments, scaling)
    else:
        attended = _PackedAttention.apply(q, k, v, segments.groups, scaling)  # type: ignore[no-untyped-call]
    return attended.unsqueeze(0), None


def _on_cuda(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float) -> Tensor:
    longest = segments.lengths[0]
    attended = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        segments.offsets,
        segments.offsets,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=True,
    )
    return attended if isinstance(attended, Tensor) else attended[0]


AttentionInterface.register(IMPLEMENTATION, packed_attention)
