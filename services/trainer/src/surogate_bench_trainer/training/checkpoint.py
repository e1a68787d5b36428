"""Checkpoints in the store: tensors as safetensors, metrics as they are, and a JSON written last to seal both."""

import hashlib
import json
import logging
import re
from dataclasses import dataclass

import safetensors
import safetensors.torch
from torch import Tensor

from surogate_bench.contract import METRICS_FILE
from surogate_bench.store import ObjectStore

_log = logging.getLogger(__name__)
_STATE, _SEAL = "state.safetensors", "complete.json"
_KEPT = 2
_STEP = re.compile(r"/step-(\d+)/complete\.json$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything training needs to go on as if it had never stopped."""

    step: int
    """Optimizer steps done."""
    tensors: dict[str, Tensor]
    """Master weights, moments, recipe state, generator states."""
    metrics: bytes
    """``metrics.jsonl`` up to ``step``."""
    peak_memory_bytes: int
    """Over all attempts so far."""


def save_checkpoint(store: ObjectStore, prefix: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under ``prefix`` and then drop all but the newest two.

    Raises:
        TransientError: the store is away.
        PermanentError: the store refuses.
    """
    folder = f"{prefix}/step-{checkpoint.step:06d}"
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    objects = {_STATE: safetensors.torch.save(tensors), METRICS_FILE: checkpoint.metrics}
    for name, data in objects.items():
        store.put(f"{folder}/{name}", data)
    seal = {
        "step": checkpoint.step,
        "peak_memory_bytes": checkpoint.peak_memory_bytes,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in objects.items()},
    }
    store.put(f"{folder}/{_SEAL}", json.dumps(seal).encode())
    for _, old in _sealed(store, prefix)[_KEPT:]:
        store.delete([f"{old}/{name}" for name in (_SEAL, _STATE, METRICS_FILE)])


def load_newest(store: ObjectStore, prefix: str) -> Checkpoint | None:
    """Read the newest checkpoint that is whole; None where there is none.

    Raises:
        TransientError: the store is away.
    """
    for step, folder in _sealed(store, prefix):
        checkpoint = _load(store, folder)
        if checkpoint is not None:
            return checkpoint
        _log.warning("the checkpoint of step %d is damaged; an older one is tried", step)
    return None


def delete_checkpoints(store: ObjectStore, prefix: str) -> None:
    """Remove every checkpoint."""
    store.delete([info.key for info in store.list(prefix)])


def _sealed(store: ObjectStore, prefix: str) -> list[tuple[int, str]]:
    """(step, folder) of the sealed checkpoints, newest first."""
    found = [(_STEP.search(info.key), info.key) for info in store.list(prefix)]
    return sorted(
        ((int(match.group(1)), key.removesuffix(f"/{_SEAL}")) for match, key in found if match is not None),
        reverse=True,
    )


def _load(store: ObjectStore, folder: str) -> Checkpoint | None:
    raw = [store.get(f"{folder}/{name}") for name in (_SEAL, _STATE, METRICS_FILE)]
    try:
        seal, state, metrics = (data if data is not None else b"" for data in raw)
        described = json.loads(seal)
        for name, data in ((_STATE, state), (METRICS_FILE, metrics)):
            if hashlib.sha256(data).hexdigest() != described["sha256"][name]:
                return None
        return Checkpoint(
            step=described["step"],
            tensors=safetensors.torch.load(state),
            metrics=metrics,
            peak_memory_bytes=described["peak_memory_bytes"],
        )
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError):
        return None
