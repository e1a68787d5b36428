"""LoRA for linear layers on CPU, one pair of matrix products per adapter in the batch.

For the tokens of one adapter (Hu et al., 2021)::

    y[:, slice] += bf16(x Aᵀ) Bᵀ        for each slice of a fused projection (q, k, v; gate, up)

rounded where vLLM rounds: the inner product is taken in float32 and rounded to the model's type before the second,
whose result is rounded before it is added. The slices' A matrices are stacked, and their B matrices lie on a block
diagonal, so that a fused projection takes two products rather than two per slice.

The inner product is a batch of vector-matrix products over one broadcast matrix, which is what vLLM does over gathered
copies: the same kernel adds in the same order, and answers stay the same to the bit. One matrix product would be a
little faster, and differ from vLLM in about one rounding in ten thousand.

Embeddings and output heads, which vLLM prepares for adapters too, are skipped while no adapter in memory changes them.

Tokens without an adapter (index -1) are left alone. vLLM's own CPU code gives them the adapter in the last slot when
the batch holds other adapters too, because -1 indexes from the end.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from surogate_bench.contract import CPU_LORA_MARK_VARIABLE

Stack = tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """The tokens of one adapter slot: ``rows`` (int64 [n]) of the batch, or all of them where None."""

    slot: int
    rows: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class SlotWeights:
    """One adapter's matrices for one layer, padding left out.

    ``a`` is float32 [ranks, inputs]; ``b`` is of the model's type, [ranks, outputs].
    """

    a: torch.Tensor
    b: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Emptiness:
    """Whether a stack was all zero, and the version of the stack that was checked."""

    stack: torch.Tensor
    version: int
    empty: bool


@dataclass(frozen=True, slots=True)
class _Layer:
    """The prepared weights of a layer, and the version of the stacks that they were prepared from."""

    stacks: tuple[Stack, Stack]  # kept alive, so that no other tensor gets their ids
    version: int
    slots: dict[int, SlotWeights | None]


def group_tokens(indices: torch.Tensor) -> tuple[TokenGroup, ...]:
    """Group tokens by adapter slot.

    Args:
        indices: Slot of each token (int64 [tokens]); -1 for tokens without an adapter, which are in no group.
    """
    slots = torch.unique(indices).tolist()
    if len(slots) == 1:
        return () if slots[0] < 0 else (TokenGroup(slots[0], None),)
    return tuple(TokenGroup(slot, (indices == slot).nonzero(as_tuple=True)[0]) for slot in slots if slot >= 0)


def combine_slices(a_slices: Stack, b_slices: Stack) -> SlotWeights | None:
    """Combine an adapter's matrices for the slices of one layer; None where it does not change the layer.

    Args:
        a_slices: A of each slice, [padded rank, inputs].
        b_slices: B of each slice, [outputs of the slice, padded rank].
    """
    kept_a, kept_b = [], []
    for a, b in zip(a_slices, b_slices, strict=True):
        used = ((a != 0).any(dim=1) & (b != 0).any(dim=0)).nonzero(as_tuple=True)[0]
        kept_a.append(a.index_select(0, used))
        kept_b.append(b.index_select(1, used).t())
    combined = torch.cat(kept_a).float()
    if combined.shape[0] == 0:
        return None
    diagonal: torch.Tensor = torch.block_diag(*kept_b)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return SlotWeights(combined, diagonal)


def contribution(x: torch.Tensor, weights: SlotWeights) -> torch.Tensor:
    """Compute what one adapter adds to a layer's output: [tokens, inputs] → [tokens, outputs], in x's type."""
    broadcast = weights.a.t().unsqueeze(0).expand(x.shape[0], -1, -1)
    inner = torch.bmm(x.float().unsqueeze(1), broadcast).squeeze(1)
    return torch.mm(inner.to(x.dtype), weights.b)


class GroupedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]  # vLLM is not followed by the type checker
    """vLLM's CPU LoRA with linear layers done per adapter instead of per token.

    Other calls, and adapters of embeddings and output heads, are left to vLLM's own code.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - whatever vLLM gives its own class
        super().__init__(*args, **kwargs)
        if mark := os.environ.get(CPU_LORA_MARK_VARIABLE):
            Path(mark).touch()
        self._groups: tuple[TokenGroup, ...] = ()
        self._tokens = 0
        self._layers: dict[int, _Layer] = {}
        self._emptiness: dict[int, _Emptiness] = {}

    def update_metadata(
        self,
        mapping: Any,  # noqa: ANN401 - vLLM's type
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,  # noqa: ANN401 - vLLM's signature
    ) -> None:
        """Set the mapping of tokens to adapter slots for the next batches."""
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        indices = self.token_lora_indices
        self._groups = group_tokens(indices)
        self._tokens = indices.numel()

    def add_lora_linear(  # noqa: PLR0913 - vLLM's signature
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Stack,
        lora_b_stacked: Stack,
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: Stack | None = None,
        **kwargs: Any,  # noqa: ANN401 - vLLM's signature
    ) -> None:
        """Add the adapters' contributions to a linear layer's output, in place.

        Args:
            y: Output [tokens, sum of output_slices].
            x: Input [tokens, inputs], of the same type.
            lora_a_stacked: Per slice, A of every slot: [slots, 1, padded rank, inputs].
            lora_b_stacked: Per slice, B of every slot: [slots, 1, outputs, padded rank].
            scale: Factor of the contribution; vLLM puts an adapter's own scale into B and passes 1.
            output_slices: Outputs of each slice.
            buffer: Destination of the inner products; None in all of vLLM's linear layers.
            kwargs: Unused.
        """
        if not self._can_group(y, x, lora_a_stacked, lora_b_stacked, scale, buffer):
            super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, buffer=buffer, **kwargs)
            return
        y = y.view(-1, y.shape[-1])
        for group in self._groups:
            weights = self._slot_weights(group.slot, lora_a_stacked, lora_b_stacked)
            if weights is None:
                continue
            inputs = x if group.rows is None else x.index_select(0, group.rows)
            added = contribution(inputs, weights)
            target = y[:, : added.shape[1]]
            if group.rows is None:
                target.add_(added)
            else:
                target.index_add_(0, group.rows, added)

    def add_lora_embedding(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        add_inputs: bool = True,
        **kwargs: Any,  # noqa: ANN401 - vLLM's signature
    ) -> None:
        """Add the adapters' contributions to embeddings (B of every slot: [slots, 1, outputs, padded rank])."""
        if not (add_inputs and self._is_empty(lora_b_stacked)):
            super().add_lora_embedding(y, x, lora_b_stacked, add_inputs, **kwargs)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,  # noqa: ANN401 - vLLM's signature
    ) -> None:
        """Add the adapters' contributions to logits (B of every slot: [slots, 1, vocabulary, padded rank])."""
        if not self._is_empty(lora_b_stacked):
            super().add_lora_logits(y, x, lora_a_stacked, lora_b_stacked, scale, buffer=buffer, **kwargs)

    def _is_empty(self, stack: torch.Tensor) -> bool:
        """Return whether every slot of a stack is zero; checked again whenever vLLM has written to it."""
        if stack.is_inference():
            return False
        known = self._emptiness.get(id(stack))
        if known is None or known.stack is not stack or known.version != stack._version:
            known = self._emptiness[id(stack)] = _Emptiness(stack, stack._version, not bool(stack.any()))
        return known.empty

    def _can_group(
        self, y: torch.Tensor, x: torch.Tensor, a: Stack, b: Stack, scale: float, buffer: Stack | None
    ) -> bool:
        """Return whether this is the one case that vLLM's linear layers use."""
        return (
            buffer is None
            and scale == 1.0
            and x.dim() == 2  # noqa: PLR2004 - [tokens, inputs]
            and x.shape[0] == self._tokens
            and x.dtype == y.dtype == a[0].dtype == b[0].dtype
            and not a[0].is_inference()  # such tensors do not count their changes
        )

    def _slot_weights(self, slot: int, a: Stack, b: Stack) -> SlotWeights | None:
        """Return a slot's matrices, prepared again whenever vLLM has written to the stacks."""
        version = sum(tensor._version for tensor in (*a, *b))
        layer = self._layers.get(id(a))
        if layer is None or layer.stacks[0] is not a or layer.version != version:
            layer = self._layers[id(a)] = _Layer((a, b), version, {})
        if slot not in layer.slots:
            layer.slots[slot] = combine_slices(
                tuple(tensor[slot, 0] for tensor in a), tuple(tensor[slot, 0] for tensor in b)
            )
        return layer.slots[slot]
