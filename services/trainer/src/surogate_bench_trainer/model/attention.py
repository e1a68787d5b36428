"""Causal attention within each sample of a packed stream, never across samples.

Registered with transformers as ``packed_segments``; the stream's layout arrives as the keyword ``segments``, which
transformers hands through from the model's ``forward``. On CPU, samples of about one length form groups that are
gathered into padded batches (causality alone keeps real tokens from seeing the padding behind them), so no T x T mask
or score matrix ever exists; batched matrix products in bf16 beat PyTorch's CPU flash attention several times over in
the backward pass. On CUDA, ``varlen_attn`` takes the stream as it is.

Sliding windows, soft-capping and sinks are computed (the latter two on CPU only); any other argument that a model's
layer passes is refused: it would change the result.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from surogate_bench.errors import PermanentError
from surogate_bench_trainer.model.attention_layout import Segments, segments_of
from surogate_bench_trainer.model.attention_scores import ScoreRule
from surogate_bench_trainer.model.grouped_attention import GroupedAttention

__all__ = ["IMPLEMENTATION", "Segments", "packed_attention", "segments_of"]

IMPLEMENTATION = "packed_segments"
"""Value of ``attn_implementation``."""

_WITHOUT_EFFECT = frozenset({"position_ids", "cache_position", "use_cache"})
"""Keywords that models pass to every attention implementation; queries and keys are rotated already."""


def packed_attention(  # noqa: PLR0913 - transformers decides
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
    **others: Any,  # noqa: ANN401 - whatever else the model passes on
) -> tuple[Tensor, None]:
    """Attend within samples, in the form that transformers' ``AttentionInterface`` asks for.

    Args:
        module: The attention layer.
        query: (1, heads, T, head size).
        key: (1, kv heads, T, head size).
        value: As ``key``.
        attention_mask: None: transformers makes no mask for an implementation it does not know.
        segments: Layout of the stream.
        scaling: Factor on the scores; head size ** -0.5 if None.
        dropout: 0.
        sliding_window: Keys that a query sees, itself included.
        softcap: Bound c of scores c tanh(s / c); CPU only.
        s_aux: (heads,), a logit per head in the softmax's denominator; CPU only.
        is_causal: Not False.
        others: Arguments without effect on attention; any other one must be None or False.

    Returns:
        (1, T, heads, head size), and None for the weights.

    Raises:
        PermanentError: a feature is asked for that is not supported; names it. Or ``segments`` is missing.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    refused = {"attention_mask": attention_mask is not None, "dropout": bool(dropout), "is_causal=False": not causal}
    refused |= {
        name: setting is not None and setting is not False
        for name, setting in others.items()
        if name not in _WITHOUT_EFFECT
    }
    if query.is_cuda:
        refused |= {"softcap on a GPU": softcap is not None, "attention sinks on a GPU": s_aux is not None}
    if names := [name for name, given in refused.items() if given]:
        raise PermanentError(f"{type(module).__name__}: packed attention does not support {', '.join(names)}")
    if segments is None:
        raise PermanentError(
            f"{type(module).__name__}: packed attention needs the layout of the packed samples, which "
            "this architecture does not pass on to its attention layers"
        )
    rule = ScoreRule(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    q, k, v = (tensor.transpose(1, 2).squeeze(0) for tensor in (query, key, value))  # (T, heads, head size)
    attended: Tensor
    if query.is_cuda:
        attended = _on_cuda(q, k, v, segments, rule)
    else:
        attended = GroupedAttention.apply(q, k, v, s_aux, segments.groups, rule)  # type: ignore[no-untyped-call]
    return attended.unsqueeze(0), None


def _on_cuda(query: Tensor, key: Tensor, value: Tensor, segments: Segments, rule: ScoreRule) -> Tensor:
    longest = segments.lengths[0]
    window = rule.within(longest).window
    attended = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        segments.offsets,
        segments.offsets,
        longest,
        longest,
        scale=rule.scaling,
        window_size=(-1, 0) if window is None else (window - 1, 0),  # counts the keys before the query
        enable_gqa=True,
    )
    return attended if isinstance(attended, Tensor) else attended[0]


AttentionInterface.register(IMPLEMENTATION, packed_attention)
