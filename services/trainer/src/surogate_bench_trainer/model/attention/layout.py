"""The layout of a packed stream for attention: groups of samples that are computed together, and offsets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_GROUP_SCORES = 1 << 19
"""Most scores of a group (heads x L x L for each sample), so that they fit into the cache."""
_MULTIPLE = 32
"""Padded lengths are multiples of this number: softmax over bf16 rows of other lengths is half as fast."""
_LONG = 1024
"""Samples of at least this padded length have their probabilities recomputed in the backward pass."""


@dataclass(frozen=True, slots=True)
class PaddingIndices:
    """Indices that gather a group's rows of the stream (one per token and head) into a padded batch, and back."""

    heads: int
    longest: int
    gather: Tensor
    """int64: for every padded row (sample, head, position), the stream row to copy; for padding, the sample's first."""
    scatter: Tensor
    """int64: for every stream row, its index in the padded batch."""

    def pad(self, rows: Tensor) -> Tensor:
        """Gather (tokens, heads, head size) into (samples x heads, longest, head size)."""
        size = rows.shape[-1]
        return rows.reshape(-1, size).index_select(0, self.gather).view(-1, self.longest, size)

    def unpad(self, padded: Tensor) -> Tensor:
        """Gather padded rows, in any shape of the same order, back into (tokens, heads, head size)."""
        size = padded.shape[-1]
        return padded.view(-1, size).index_select(0, self.scatter).view(-1, self.heads, size)


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive samples of the stream that are computed together."""

    tokens: slice
    """Tokens of the group in the stream."""
    longest: int
    """Padded length."""
    queries: PaddingIndices
    keys: PaddingIndices

    @property
    def recomputed(self) -> bool:
        """Whether the backward pass recomputes the probabilities; such a group is one long sample."""
        return self.longest >= _LONG


@dataclass(frozen=True, slots=True)
class Segments:
    """The layout of one packed stream, computed once and used by every layer."""

    lengths: tuple[int, ...]
    groups: tuple[Group, ...]
    """Used on CPU."""
    offsets: Tensor
    """int32 (samples + 1,): start of each sample, and the end of the last. Used on CUDA."""


def segments_of(lengths: Sequence[int], *, heads: int, kv_heads: int, device: torch.device) -> Segments:
    """Compute the layout of a stream of samples. Samples of similar length should be adjacent.

    Args:
        lengths: Tokens of each sample.
        heads: Query heads of the model.
        kv_heads: Key-value heads of the model.
        device: The model's device.
    """
    offsets = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
    groups: list[Group] = []
    if device.type == "cpu":
        first, index = 0, 0
        while index < len(lengths):
            count = _group_size(lengths[index:], heads)
            group = _build_group(first, lengths[index : index + count], heads, kv_heads)
            groups.append(group)
            first, index = group.tokens.stop, index + count
    return Segments(tuple(lengths), tuple(groups), offsets)


def _group_size(lengths: Sequence[int], heads: int) -> int:
    longest = _padded(lengths[0])
    if longest >= _LONG:
        return 1
    fit_cache = max(1, _GROUP_SCORES // (heads * longest**2))
    same_length = next((index for index, length in enumerate(lengths) if _padded(length) != longest), len(lengths))
    return min(fit_cache, same_length)


def _padded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def _build_group(first: int, lengths: Sequence[int], heads: int, kv_heads: int) -> Group:
    longest = _padded(lengths[0])
    sizes = torch.tensor(lengths)
    positions = torch.arange(longest).expand(len(lengths), longest)
    starts = sizes.cumsum(0) - sizes
    real = positions < sizes[:, None]
    token = torch.where(real, starts[:, None] + positions, starts[:, None])  # (samples, longest)
    sample_of, position_of = real.nonzero(as_tuple=True)

    def padding_indices(total_heads: int) -> PaddingIndices:
        head = torch.arange(total_heads)
        gather = token[:, None, :] * total_heads + head[:, None]
        scatter = (sample_of[:, None] * total_heads + head) * longest + position_of[:, None]
        return PaddingIndices(total_heads, longest, gather.flatten(), scatter.flatten())

    return Group(slice(first, first + sum(lengths)), longest, padding_indices(heads), padding_indices(kv_heads))
