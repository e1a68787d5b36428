"""Forward and backward passes over micro-batches."""

from typing import Any, Protocol

from peft import PeftModel
from torch import Tensor

from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.model.attention import Segments, segments_of
from surogate_bench_trainer.model.loss import cross_entropy


class Passes(Protocol):
    """How a micro-batch's gradients come about."""

    def __call__(self, batch: PackedBatch, weight: float) -> Tensor:
        """Add the gradients of one micro-batch to the parameters'.

        Args:
            batch: The micro-batch.
            weight: Factor on the summed loss of its counted tokens.

        Returns:
            The weighted loss, 0-dim fp32; valid until the next call.
        """
        ...


class PlainPasses:
    """Operation by operation, as autograd runs them.

    Args:
        model: The base with its adapters, in the right mode.
    """

    def __init__(self, model: PeftModel) -> None:
        self._model = model

    def __call__(self, batch: PackedBatch, weight: float) -> Tensor:
        """See :class:`Passes`."""
        loss = packed_loss(self._model, batch, segments_for(self._model, batch.lengths), weight)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def segments_for(model: PeftModel, lengths: tuple[int, ...]) -> Segments:
    """Lay out a stream of samples of these lengths for a model's attention."""
    config: Any = model.config
    return segments_of(
        lengths, heads=config.num_attention_heads, kv_heads=config.num_key_value_heads, device=model.device
    )


def packed_loss(model: PeftModel, batch: PackedBatch, segments: Segments, weight: Tensor | float) -> Tensor:
    """Weighted sum of the cross-entropies (nats) of a batch's counted tokens: 0-dim fp32."""
    output = model.base_model.model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        logits_to_keep=batch.predicting,
        segments=segments,
        use_cache=False,
    )
    return cross_entropy(output.logits[0], batch.targets, weight=weight)
