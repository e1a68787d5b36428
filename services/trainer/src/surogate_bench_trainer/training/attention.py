"""Causal attention within each sample of a packed stream, never across samples.

Registered with transformers as ``packed_segments``; the stream's layout arrives as the keyword ``segments``, which
transformers hands through from the model's ``forward``. On CPU, samples of similar length form groups that are
gathered into padded batches (causality alone keeps real tokens from seeing the padding behind them), so no T x T mask
or score matrix ever exists; batched matrix products in bf16 beat PyTorch's CPU flash attention several times over in
the backward pass. On CUDA, ``varlen_attn`` takes the stream as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

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
    """How rows of one head each are gathered from the stream into a padded batch, and back."""

    gather: Tensor
    """int64: for every padded row, the stream row to copy (some row of the same sample where it is padding)."""
    scatter: Tensor
    """int64: for every stream row, its place in the padded batch."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Consecutive samples of the stream that are computed together."""

    first: int
    tokens: int
    batch: int
    """Samples times key-value heads: products with keys of their own."""
    longest: int
    """Padded length."""
    queries: _Side
    keys: _Side

    def pad(self, rows: Tensor, side: _Side) -> Tensor:
        """(tokens, heads, head size) to (batch, rows, head size)."""
        size = rows.shape[-1]
        return rows.reshape(-1, size).index_select(0, side.gather).view(self.batch, -1, size)


@dataclass(frozen=True, slots=True)
class Segments:
    """The layout of one packed stream, prepared once and used by every layer."""

    lengths: tuple[int, ...]
    groups: tuple[_Group, ...]
    """For CPU."""
    offsets: Tensor
    """int32 (samples + 1,): where each sample starts, and the end; for CUDA."""


def segments_of(lengths: Sequence[int], *, heads: int, kv_heads: int, device: torch.device) -> Segments:
    """Prepare the layout of a stream of samples, given longest first.

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
            first, index = first + group.tokens, index + count
    return Segments(tuple(lengths), tuple(groups), offsets)


def _group_size(lengths: Sequence[int], heads: int) -> int:
    if _padded(lengths[0]) >= _LONG:
        return 1
    fitting = max(1, _GROUP_SCORES // (heads * lengths[0] ** 2))
    similar = next((i for i, length in enumerate(lengths) if 3 * length < 2 * lengths[0]), len(lengths))
    return min(fitting, similar)


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
        # Padded rows are ordered (sample, head, place), and query heads that share keys are neighbours: seen as
        # (sample x kv head, query head x place), they are more rows of one product.
        head = torch.arange(total_heads)
        gather = token[:, None, :] * total_heads + head[:, None]
        scatter = (sample_of[:, None] * total_heads + head) * longest + place_of[:, None]
        return _Side(gather.flatten(), scatter.flatten())

    return _Group(first, int(sizes.sum()), len(lengths) * kv_heads, longest, side(heads), side(kv_heads))


class _GroupAttention(torch.autograd.Function):
    """softmax(scaling q k^T + causal mask) v over one group, its probabilities kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, group: _Group, scaling: float) -> Tensor:  # noqa: ANN401
        q, k, v = group.pad(query, group.queries), group.pad(key, group.keys), group.pad(value, group.keys)
        mask = torch.full((group.longest, group.longest), float("-inf"), dtype=q.dtype).triu_(1)
        mask = mask.repeat(q.shape[1] // group.longest, 1)
        weights = torch.softmax(torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scaling), dim=-1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.group, ctx.scaling = group, scaling
        return _unpad(weights @ v, group.queries, query.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # noqa: ANN401
        q, k, v, weights = ctx.saved_tensors
        group: _Group = ctx.group
        size = q.shape[-1]
        outer = torch.zeros_like(q)  # padding has no gradient
        outer.view(-1, size).index_copy_(0, group.queries.scatter, gradient.reshape(-1, size))
        scores = torch._softmax_backward_data(outer @ v.transpose(1, 2), weights, -1, weights.dtype)
        scores.mul_(ctx.scaling)
        stream = (group.tokens, -1, size)
        return (
            _unpad(scores @ k, group.queries, stream),
            _unpad(scores.transpose(1, 2) @ q, group.keys, stream),
            _unpad(weights.transpose(1, 2) @ outer, group.keys, stream),
            None,
            None,
        )


def _unpad(padded: Tensor, side: _Side, shape: Sequence[int]) -> Tensor:
    return padded.reshape(-1, padded.shape[-1]).index_select(0, side.scatter).view(*shape)


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
    attended = _on_cuda(q, k, v, segments, scaling) if query.is_cuda else _on_cpu(q, k, v, segments, scaling)
    return attended.unsqueeze(0), None


def _on_cpu(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float) -> Tensor:
    outputs: list[Tensor] = []
    for group in segments.groups:
        q, k, v = (tensor[group.first : group.first + group.tokens] for tensor in (query, key, value))
        if group.longest < _LONG:
            outputs.append(_GroupAttention.apply(q, k, v, group, scaling))  # type: ignore[no-untyped-call]
        else:
            outputs.append(_recomputing(q, k, v, scaling))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _recomputing(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attention of one long sample: (L, heads, head size)."""
    q, k, v = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
    attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    return attended.squeeze(0).transpose(0, 1)


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
