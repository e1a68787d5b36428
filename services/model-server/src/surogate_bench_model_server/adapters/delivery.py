"""Delivery of adapters from the object store to vLLM: fetch, verify, check, and name by content."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import load_file, save_file

from surogate_bench.contract import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FOLDER,
    ADAPTER_PREFIX,
    ADAPTER_WEIGHTS_FILE,
    INPUT_SCALES_FILE,
    LORA_A,
    LORA_B,
)
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.files import sha256_of
from surogate_bench.inputs.adapter_files import PICKLES
from surogate_bench.specs.adapters import SERVED_MODULES
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import fetch_stage
from surogate_bench.store.object_store import ObjectStore

_PREFIX = f"{ADAPTER_FOLDER}/"
_HASH_DIGITS = 12
_NO_LAYER = f"{ADAPTER_PREFIX}model.layers.1000000.self_attn"
_AMPLIFICATION = 2**20
"""Makes an effect visible that rounding to bfloat16 hides."""
_RUN = re.compile(r"[a-z0-9]([a-z0-9-]{0,78}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalAdapter:
    """A checked adapter on this machine. ``name`` has its run and the first digits of its SHA-256."""

    run: str
    name: str
    folder: Path


class _AdapterConfig(BaseModel):
    """The fields of PEFT's ``adapter_config.json`` that decide whether vLLM serves what was trained."""

    model_config = ConfigDict(extra="ignore", strict=True)

    peft_type: str
    r: int = Field(ge=1)
    target_modules: list[str]
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] = {}
    bias: str = "none"
    use_dora: bool = False


def check_run_name(run: str) -> str:
    """Return ``run`` if it is a possible run name, harmless in paths, URLs and model names.

    Raises:
        ConfigError: it is not.
    """
    if _RUN.fullmatch(run) is None:
        raise ConfigError(
            "is not a run name", field="run", value=run, remedy="Use lower-case letters, digits and dashes."
        )
    return run


def deliver_adapter(
    store: ObjectStore, run: str, prefix: str, *, into: Path, max_rank: int, with_input_scales: bool = False
) -> LocalAdapter:
    """Fetch the adapter of a finished train stage and check it. An adapter that was fetched before is used.

    Args:
        store: Holds the stage.
        run: Run that the adapter belongs to.
        prefix: Key prefix of the run's train stage.
        into: Folder that gets one folder per adapter.
        max_rank: ``serving.max_lora_rank``.
        with_input_scales: Also fetch the input scales that were stored at the end of its training, if any.

    Raises:
        PermanentError: the stage is not finished, a file differs from its digest, or the adapter cannot be served.
        TransientError: the store is unavailable.
    """
    into.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=into, prefix=".fetching-"))
    try:
        manifest = fetch_stage(store, prefix, scratch, under=_PREFIX)
        fetched = scratch / ADAPTER_FOLDER
        check_adapter(fetched, _adapter_files(manifest), max_rank=max_rank)
        if with_input_scales and INPUT_SCALES_FILE in manifest.files:
            fetch_stage(store, prefix, scratch, under=INPUT_SCALES_FILE)
            (scratch / INPUT_SCALES_FILE).rename(fetched / INPUT_SCALES_FILE)
            _check_input_scales(fetched / INPUT_SCALES_FILE)
        name = f"{run}-{content_hash(fetched)[:_HASH_DIGITS]}"
        adapter = LocalAdapter(run=run, name=name, folder=into / name)
        if find_adapter(run, name, into) is None:
            shutil.rmtree(adapter.folder, ignore_errors=True)
            fetched.rename(adapter.folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return adapter


def find_adapter(run: str, name: str, into: Path) -> LocalAdapter | None:
    """Return the adapter that was delivered before under ``name``; None if it is gone or damaged."""
    folder = into / name
    try:
        intact = name == f"{run}-{content_hash(folder)[:_HASH_DIGITS]}"
    except OSError:
        return None
    return LocalAdapter(run=run, name=name, folder=folder) if intact else None


def content_hash(folder: Path) -> str:
    """SHA-256 (hex) over an adapter's configuration and weights.

    vLLM keeps a prefix cache per adapter name, so a name must never be used again for other weights.
    """
    digest = hashlib.sha256()
    for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE):
        digest.update(f"{name} {sha256_of(folder / name)}\n".encode())
    return digest.hexdigest()


def check_adapter(folder: Path, files: Iterable[str], *, max_rank: int) -> None:
    """Check everything about an adapter that vLLM would refuse, ignore or misread.

    Args:
        folder: Holds the files.
        files: Their paths relative to it.
        max_rank: Highest rank that is served.

    Raises:
        PermanentError: naming what is wrong with it.
    """
    names = set(files)
    if foreign := sorted(name for name in names if name.endswith(PICKLES)):
        raise PermanentError(f"the adapter holds {', '.join(foreign)}: only safetensors are loaded")
    for required in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE):
        if required not in names:
            raise PermanentError(f"the adapter has no {required}")
    _check_config(folder / ADAPTER_CONFIG_FILE, max_rank)
    _check_weights(folder / ADAPTER_WEIGHTS_FILE, max_rank)


def is_zero(adapter: LocalAdapter) -> bool:
    """Return whether every B matrix is zero, as before the first training step: the adapter is the base model then."""
    return not any(
        any(tensor["data"]) for name, tensor in _tensors(adapter.folder / ADAPTER_WEIGHTS_FILE) if name.endswith(LORA_B)
    )


def amplified_copy(adapter: LocalAdapter) -> LocalAdapter:
    """Copy an adapter, with its scale raised by 2**20, next to it; the caller removes the copy's folder."""
    name = f"{adapter.name}-amplified"
    folder = adapter.folder.with_name(name)
    shutil.copytree(adapter.folder, folder, dirs_exist_ok=True)
    config = json.loads((folder / ADAPTER_CONFIG_FILE).read_bytes())
    config["lora_alpha"] = config.get("lora_alpha", config["r"]) * _AMPLIFICATION
    patterns = config.get("alpha_pattern") or {}
    config["alpha_pattern"] = {layers: alpha * _AMPLIFICATION for layers, alpha in patterns.items()}
    (folder / ADAPTER_CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    return LocalAdapter(run=adapter.run, name=name, folder=folder)


def make_empty_adapter(name: str, into: Path, *, layer: str, scales_of: LocalAdapter | None = None) -> LocalAdapter:
    """Write an adapter that changes no layer: vLLM treats its tokens as an adapter's, and computes the base model.

    vLLM loads no file without tensors, and no name that the model's layers do not have, so there is a pair of zeros for
    such a layer in a transformer block that no model has.

    Args:
        name: Name of the adapter.
        into: Folder that gets its folder.
        layer: Last part of the name of linear layers of the model.
        scales_of: Copy the input scales of this adapter.
    """
    folder = into / name
    folder.mkdir(parents=True, exist_ok=True)
    if scales_of is not None:
        shutil.copy(scales_of.folder / INPUT_SCALES_FILE, folder)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 1, "target_modules": [layer]}
    (folder / ADAPTER_CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    zeros = np.zeros((1, 1), np.float32)
    save_file({f"{_NO_LAYER}.{layer}{matrix}": zeros for matrix in (LORA_A, LORA_B)}, folder / ADAPTER_WEIGHTS_FILE)
    return LocalAdapter(run=name, name=name, folder=folder)


def _tensors(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        tensors: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(  # type: ignore[no-untyped-call]  # compiled
            path.read_bytes()
        )
    except safetensors.SafetensorError as error:
        raise PermanentError(f"{ADAPTER_WEIGHTS_FILE} of the adapter is damaged: {error}") from error
    return tensors


def _check_input_scales(path: Path) -> None:
    try:
        scales = load_file(path)
    except safetensors.SafetensorError as error:
        raise PermanentError(f"{path.name} of the run is damaged: {error}") from error
    for name, scale in scales.items():
        if scale.shape != () or scale.dtype != np.float32 or not 0 < float(scale) < float("inf"):
            raise PermanentError(f"{path.name} of the run has no positive fp32 scalar for {name}")


def _adapter_files(manifest: Manifest) -> list[str]:
    return [name.removeprefix(_PREFIX) for name in manifest.files if name.startswith(_PREFIX)]


def _check_config(path: Path, max_rank: int) -> None:
    try:
        config = _AdapterConfig.model_validate(json.loads(path.read_bytes()))
    except (ValidationError, ValueError) as error:
        raise PermanentError(f"{ADAPTER_CONFIG_FILE} of the adapter cannot be understood: {error}") from error
    if config.peft_type != "LORA":
        raise PermanentError(f"the adapter is of type {config.peft_type}: only LORA is served")
    rank = max([config.r, *config.rank_pattern.values()])
    if rank > max_rank:
        raise PermanentError(
            f"the adapter's rank {rank} is above serving.max_lora_rank {max_rank}. Raise max_lora_rank, or lower "
            "training.lora.r."
        )
    if config.modules_to_save:
        raise PermanentError(
            f"the adapter contains whole modules (modules_to_save: {', '.join(config.modules_to_save)}), which vLLM "
            "would not load"
        )
    if unknown := sorted({name.rpartition(".")[2] for name in config.target_modules} - SERVED_MODULES):
        raise PermanentError(
            f"the adapter changes {', '.join(unknown)}; served are {', '.join(sorted(SERVED_MODULES))}"
        )
    if config.bias != "none" or config.use_dora:
        raise PermanentError("the adapter trains biases or uses DoRA, which vLLM does not serve")


def _check_weights(path: Path, max_rank: int) -> None:
    tensors = _tensors(path)
    if not tensors:
        raise PermanentError(f"{ADAPTER_WEIGHTS_FILE} of the adapter is empty")
    for name, tensor in tensors:
        if not name.endswith((LORA_A, LORA_B)):
            raise PermanentError(f"{ADAPTER_WEIGHTS_FILE} of the adapter holds {name!r}, which is not a LoRA matrix")
        rank = tensor["shape"][0 if name.endswith(LORA_A) else 1]
        if rank > max_rank:
            raise PermanentError(f"{name} has rank {rank}, above serving.max_lora_rank {max_rank}")
