"""Causal attention within each sample of a packed stream, never across samples.

Registered with transformers as ``packed_segments``. The layout of the stream is the keyword ``segments``, which
transformers forwards from the model's ``forward``. On a CPU, samples of similar length form groups that are gathered
into padded batches (causality alone keeps real tokens from attending to the padding after them), so no T x T mask or
score matrix ever exists; in the backward pass, batched bf16 matrix products are several times as fast as PyTorch's CPU
flash attention. On CUDA, ``varlen_attn`` takes the stream unchanged.

Sliding windows, soft-capping and sinks are supported (the latter two on CPU only). Any other argument of a model's
attention layer is refused, because it would change the result.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from surogate_bench.errors import PermanentError
from surogate_bench_trainer.model.attention.grouped import GroupedAttention
from surogate_bench_trainer.model.attention.layout import Segments, segments_of
from surogate_bench_trainer.model.attention.scores import ScoreRule

__all__ = ["IMPLEMENTATION", "Segments", "packed_attention", "segments_of"]

IMPLEMENTATION = "packed_segments"
"""Value of ``attn_implementation``."""

_WITHOUT_EFFECT = frozenset({"position_ids", "cache_position", "use_cache"})
"""Keywords that models pass to every attention implementation. Queries and keys are already rotated."""


def packed_attention(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    **others: Any,  # noqa: ANN401 - any other argument of a model
) -> tuple[Tensor, None]:
    """Compute attention within samples, with the signature of transformers' ``AttentionInterface``.

    Args:
        module: The attention layer.
        query: (1, heads, T, head size).
        key: (1, kv heads, T, head size).
        value: The same shape as ``key``.
        attention_mask: None, because transformers creates no mask for an implementation that it does not know.
        segments: Layout of the stream.
        scaling: Factor on the scores; head size ** -0.5 if None.
        dropout: Must be 0.
        sliding_window: Number of keys that a query attends to, including its own.
        softcap: Bound c of scores c tanh(s / c); CPU only.
        s_aux: (heads,), a logit per head in the softmax's denominator; CPU only.
        is_causal: Must not be False.
        others: Arguments without effect on attention. All others must be None or False.

    Returns:
        (1, T, heads, head size), and None in place of the attention weights.

    Raises:
        PermanentError: an unsupported feature is requested (named in the message), or ``segments`` is missing.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    refused = {"attention_mask": attention_mask is not None, "dropout": bool(dropout), "is_causal=False": not causal}
    if query.is_cuda:
        refused |= {"softcap on a GPU": softcap is not None, "attention sinks on a GPU": s_aux is not None}
    _refuse(module, refused | _with_effect(others))
    if segments is None:
        raise PermanentError(
            f"{type(module).__name__}: packed attention needs the layout of the packed samples, which "
            "this architecture does not forward to its attention layers"
        )
    rule = ScoreRule(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    q, k, v = (tensor.transpose(1, 2).squeeze(0) for tensor in (query, key, value))  # (T, heads, head size)
    attended: Tensor
    if query.is_cuda:
        attended = _on_cuda(q, k, v, segments, rule)
    else:
        attended = GroupedAttention.apply(q, k, v, s_aux, segments.groups, rule)  # type: ignore[no-untyped-call]
    return attended.unsqueeze(0), None


def _with_effect(others: Mapping[str, Any]) -> dict[str, bool]:
    return {
        name: value is not None and value is not False for name, value in others.items() if name not in _WITHOUT_EFFECT
    }


def _refuse(module: nn.Module, features: Mapping[str, bool]) -> None:
    if names := [name for name, requested in features.items() if requested]:
        raise PermanentError(f"{type(module).__name__}: packed attention does not support {', '.join(names)}")


def _on_cuda(query: Tensor, key: Tensor, value: Tensor, segments: Segments, rule: ScoreRule) -> Tensor:
    longest = segments.lengths[0]
    window = rule.for_length(longest).window
    attended = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        segments.offsets,
        segments.offsets,
        longest,
        longest,
        scale=rule.scaling,
        window_size=(-1, 0) if window is None else (window - 1, 0),  # number of keys before the query
        enable_gqa=True,
    )
    return attended if isinstance(attended, Tensor) else attended[0]


AttentionInterface.register(IMPLEMENTATION, packed_attention)
