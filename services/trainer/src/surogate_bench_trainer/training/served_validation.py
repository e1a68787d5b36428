"""Validation loss of a finished adapter on the base model as it is served, with bf16 weights and bf16 products.

Validation during training uses the precision of the recipe, so the losses of two recipes differ in their arithmetic as
well as in their adapters. On the served base model the arithmetic is the same for all recipes.
"""

import gc
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from surogate_bench.stages.model_source import ModelLocation
from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.model.lora import load_lora
from surogate_bench_trainer.training.interruption import HeldSignals
from surogate_bench_trainer.training.learner import validation_loss
from surogate_bench_trainer.training.out_of_memory import is_out_of_memory
from surogate_bench_trainer.training.setup import load_base

_log = logging.getLogger(__name__)


def served_validation_loss(
    location: ModelLocation,
    adapter: Path,
    validation: Sequence[PackedBatch],
    device: torch.device,
) -> float | None:
    """Load the published base model again, load the saved adapter into it and validate.

    Call it after the trained model has been released: it needs as much memory as loading the base model in bf16 did at
    the start.

    Args:
        location: The base model.
        adapter: Folder of the saved adapter.
        validation: The validation split, on ``device``.
        device: Device to compute on.

    Returns:
        The loss in nats per counted token; None if memory ran out or the loss is not finite, which must not discard a
        finished training run.

    Raises:
        ConfigError, TransientError: as :func:`surogate_bench_trainer.training.setup.load_base`.
        Terminated: SIGTERM or SIGINT arrived.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        loss = _compute(location, adapter, validation, device)
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        _log.warning("no validation loss on the served base model: memory ran out")
        return None
    if not math.isfinite(loss):
        _log.warning("the validation loss on the served base model is %s", loss)
        return None
    return loss


def _compute(location: ModelLocation, adapter: Path, validation: Sequence[PackedBatch], device: torch.device) -> float:
    base, _ = load_base(location, device)
    model = load_lora(base, adapter)
    with HeldSignals() as signals:
        return validation_loss(model, validation, between=signals.check)
