"""Batches as tensors: samples of any length form one stream of tokens without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from surogate_bench_trainer.data.encoding import Sample


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """The input of one forward pass: samples in sequence, longest first, in a single stream of T tokens."""

    input_ids: Tensor
    """int64 (1, T)."""
    position_ids: Tensor
    """int64 (1, T); every sample starts at 0."""
    lengths: tuple[int, ...]
    """Tokens of each sample, in stream order."""
    predicting: Tensor
    """int64 (C,): positions whose next token counts in the loss."""
    targets: Tensor
    """int64 (C,): the next tokens of those positions."""

    @property
    def tokens(self) -> int:
        """Tokens in the stream."""
        return self.input_ids.shape[1]

    @property
    def counted(self) -> int:
        """Tokens that count in the loss."""
        return self.targets.shape[0]


def collate(samples: Sequence[Sample], loss_on: Literal["completion", "all"], device: torch.device) -> PackedBatch:
    """Join samples into one stream, longest first, so that attention can group samples of similar length."""
    ordered = sorted(samples, key=lambda sample: -len(sample.tokens))
    tokens: list[int] = []
    positions: list[int] = []
    predicting: list[int] = []
    targets: list[int] = []
    for sample in ordered:
        start, length = len(tokens), len(sample.tokens)
        tokens += sample.tokens
        positions += range(length)
        for first, end in sample.ranges(loss_on):
            predicting += range(start + first - 1, start + end - 1)
            targets += sample.tokens[first:end]
    return PackedBatch(
        input_ids=torch.tensor([tokens], device=device),
        position_ids=torch.tensor([positions], device=device),
        lengths=tuple(len(sample.tokens) for sample in ordered),
        predicting=torch.tensor(predicting, device=device),
        targets=torch.tensor(targets, device=device),
    )


def batches_of(
    samples: Sequence[Sample],
    rows: Sequence[Sequence[int]],
    loss_on: Literal["completion", "all"],
    device: torch.device,
) -> list[PackedBatch]:
    """Return one batch for each group of sample indices."""
    return [collate([samples[index] for index in row], loss_on, device) for row in rows]
