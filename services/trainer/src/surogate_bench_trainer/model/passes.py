"""Forward and backward passes over micro-batches."""

from typing import Any, Protocol

from peft import PeftModel
from torch import Tensor
from typing_extensions import override

from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.model.attention.packed import Segments, segments_of
from surogate_bench_trainer.model.heads import kv_heads_of
from surogate_bench_trainer.model.loss import cross_entropy


class Passes(Protocol):
    """Computes the gradients of micro-batches."""

    def __call__(self, batch: PackedBatch, weight: float) -> Tensor:
        """Accumulate the gradients of one micro-batch.

        Args:
            batch: The micro-batch.
            weight: Factor on the summed loss of its counted tokens.

        Returns:
            The weighted loss, 0-dim fp32; valid until the next call.
        """
        ...


class PlainPasses(Passes):
    """Passes that autograd runs operation by operation.

    Args:
        model: The base model with its adapters, in the mode to run it in.
    """

    def __init__(self, model: PeftModel) -> None:
        self._model = model

    @override
    def __call__(self, batch: PackedBatch, weight: float) -> Tensor:
        loss = packed_loss(self._model, batch, segments_for(self._model, batch.lengths), weight)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def segments_for(model: PeftModel, lengths: tuple[int, ...]) -> Segments:
    """Return the attention layout of a stream of samples with the given lengths."""
    config: Any = model.config
    return segments_of(lengths, heads=config.num_attention_heads, kv_heads=kv_heads_of(config), device=model.device)


def packed_loss(model: PeftModel, batch: PackedBatch, segments: Segments, weight: Tensor | float) -> Tensor:
    """Return the weighted sum of the cross-entropies (nats) of a batch's counted tokens: 0-dim fp32."""
    output = model.base_model.model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        logits_to_keep=batch.predicting,
        segments=segments,
        use_cache=False,
    )
    return cross_entropy(output.logits[0], batch.targets, weight=weight)
