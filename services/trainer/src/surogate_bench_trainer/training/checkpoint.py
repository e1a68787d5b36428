"""Checkpoints in the store: tensors as safetensors, the metrics file, and a JSON file written last that seals both."""

import hashlib
import json
import logging
import re
from dataclasses import dataclass

import safetensors
import safetensors.torch
from torch import Tensor

from surogate_bench.contract import METRICS_FILE
from surogate_bench.store.object_store import ObjectStore

_log = logging.getLogger(__name__)
_STATE, _SEAL = "state.safetensors", "complete.json"
_KEPT = 2
_STEP = re.compile(r"/step-(\d+)/complete\.json$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The complete training state: a resumed run equals an uninterrupted one."""

    step: int
    """Number of completed optimizer steps."""
    tensors: dict[str, Tensor]
    """Master weights, moments, recipe state and random generator states."""
    metrics: bytes
    """``metrics.jsonl`` up to ``step``."""
    peak_memory_bytes: int
    """Maximum over all attempts so far."""


def save_checkpoint(store: ObjectStore, prefix: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under ``prefix``, then delete all but the newest two.

    Raises:
        TransientError: the store is unavailable.
        PermanentError: the store refuses the request.
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
    for _, old in _list_sealed(store, prefix)[_KEPT:]:
        store.delete([f"{old}/{name}" for name in (_SEAL, _STATE, METRICS_FILE)])


def load_newest(store: ObjectStore, prefix: str) -> Checkpoint | None:
    """Read the newest intact checkpoint, or return None if there is none.

    Raises:
        TransientError: the store is unavailable.
    """
    for step, folder in _list_sealed(store, prefix):
        checkpoint = _load(store, folder)
        if checkpoint is not None:
            return checkpoint
        _log.warning("the checkpoint of step %d is damaged; trying an older one", step)
    return None


def delete_checkpoints(store: ObjectStore, prefix: str) -> None:
    """Delete every checkpoint under ``prefix``."""
    store.delete([info.key for info in store.list(prefix)])


def _list_sealed(store: ObjectStore, prefix: str) -> list[tuple[int, str]]:
    """Return (step, folder) of the sealed checkpoints, newest first."""
    matches = [(_STEP.search(info.key), info.key) for info in store.list(prefix)]
    return sorted(
        ((int(match.group(1)), key.removesuffix(f"/{_SEAL}")) for match, key in matches if match is not None),
        reverse=True,
    )


def _load(store: ObjectStore, folder: str) -> Checkpoint | None:
    raw = [store.get(f"{folder}/{name}") for name in (_SEAL, _STATE, METRICS_FILE)]
    try:
        seal, state, metrics = (data if data is not None else b"" for data in raw)
        sealed = json.loads(seal)
        for name, data in ((_STATE, state), (METRICS_FILE, metrics)):
            if hashlib.sha256(data).hexdigest() != sealed["sha256"][name]:
                return None
        return Checkpoint(
            step=sealed["step"],
            tensors=safetensors.torch.load(state),
            metrics=metrics,
            peak_memory_bytes=sealed["peak_memory_bytes"],
        )
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError):
        return None
