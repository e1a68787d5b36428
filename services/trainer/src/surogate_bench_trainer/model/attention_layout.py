"""How a packed stream is laid out for attention: groups of samples that are computed together, and offsets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_GROUP_SCORES = 1 << 19
"""Scores (heads x L x L over the group) that fit the cache; more samples than that are not batched together."""
_MULTIPLE = 32
"""Padded lengths are multiples of this: softmax over bf16 rows of other lengths is half as fast."""
_LONG = 1024
"""From this length on, a sample's probabilities are not kept for the backward pass: they are computed again."""


@dataclass(frozen=True, slots=True)
class Side:
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
class Group:
    """Consecutive samples of the stream that are computed together."""

    part: slice
    """Their tokens."""
    longest: int
    """Padded length."""
    queries: Side
    keys: Side

    @property
    def recomputed(self) -> bool:
        """Whether probabilities are made again in the backward pass; such a group is one long sample."""
        return self.longest >= _LONG


@dataclass(frozen=True, slots=True)
class Segments:
    """The layout of one packed stream, prepared once and used by every layer."""

    lengths: tuple[int, ...]
    groups: tuple[Group, ...]
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
    groups: list[Group] = []
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


def _group(first: int, lengths: Sequence[int], heads: int, kv_heads: int) -> Group:
    longest = _padded(lengths[0])
    sizes = torch.tensor(lengths)
    places = torch.arange(longest).expand(len(lengths), longest)
    starts = sizes.cumsum(0) - sizes
    real = places < sizes[:, None]
    token = torch.where(real, starts[:, None] + places, starts[:, None])  # (samples, longest)
    sample_of, place_of = real.nonzero(as_tuple=True)

    def side(total_heads: int) -> Side:
        head = torch.arange(total_heads)
        gather = token[:, None, :] * total_heads + head[:, None]
        scatter = (sample_of[:, None] * total_heads + head) * longest + place_of[:, None]
        return Side(total_heads, longest, gather.flatten(), scatter.flatten())

    return Group(slice(first, first + sum(lengths)), longest, side(heads), side(kv_heads))
