"""The import stage: one foreign adapter becomes the files that a training would have left."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from surogate_bench.content import require_same
from surogate_bench.contract import ADAPTER_CONFIG_FILE, ADAPTER_FOLDER, ADAPTER_WEIGHTS_FILE
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.files import sha256_of
from surogate_bench.model_source import locate_model
from surogate_bench.progress import Progress, write_progress
from surogate_bench.requests import ImportRequest
from surogate_bench.results import ImportResult, PrepareResult
from surogate_bench.specs import ForeignAdapter, RecipeSweep
from surogate_bench.stages import new_manifest, publish_stage, read_manifest, read_result
from surogate_bench.store import ObjectStore, open_store
from surogate_bench_trainer.foreign.base_layers import read_base_layers
from surogate_bench_trainer.foreign.config_file import AdapterConfig, parse_config
from surogate_bench_trainer.foreign.matrices import PREFIX, Pair, read_matrices
from surogate_bench_trainer.foreign.scaling import Scaling, resolve_scaling
from surogate_bench_trainer.foreign.sources import FetchedAdapter, fetch_adapter

_log = logging.getLogger(__name__)


def import_stage(request: ImportRequest, work_dir: Path) -> None:
    """Fetch, check and publish one adapter; a finished import is left alone.

    Raises:
        ConfigError: the sweep has no such adapter, or it is none that vLLM serves with the sweep's model.
        PermanentError: the prepare stage is missing.
        TransientError: store or hub are away.
    """
    store = open_store(request.store)
    prefix = request.layout.train(request.adapter)
    if read_manifest(store, prefix) is not None:
        return
    adapter, prepared = _adapter_of(request), _prepared(request, store)
    write_progress(work_dir, Progress(phase="reading the base model"))
    location = locate_model(request.sweep.model, store=store, layout=request.layout, cache=work_dir / "model")
    base = read_base_layers(location)
    max_rank = request.sweep.serving.max_lora_rank
    write_progress(work_dir, Progress(phase="fetching"))
    fetched = fetch_adapter(adapter, work_dir / "source", largest=base.largest_file(max_rank))
    _require_as_prepared(adapter, fetched, prepared)
    write_progress(work_dir, Progress(phase="checking"))
    config = parse_config(fetched.config.read_bytes(), field=adapter.field)
    pairs = read_matrices(fetched.weights, base, max_rank=max_rank, field=adapter.field)
    scaling = resolve_scaling(config, pairs, field=adapter.field)
    outputs = work_dir / "outputs"
    settings = {"target_modules": base.selection(pairs), **scaling.as_settings()}
    digest = _write(outputs / ADAPTER_FOLDER, pairs, settings, base_model=request.sweep.model.label)
    result = _result(adapter, fetched, config, pairs, scaling).model_copy(
        update={"adapter_sha256": digest, "warnings": _warnings(config, pairs, scaling, request.sweep)}
    )
    for warning in result.warnings:
        _log.warning("%s: %s", adapter.name, warning)
    write_progress(work_dir, Progress(phase="uploading"))
    publish_stage(store, prefix, outputs, new_manifest(request, result))
    _log.info("the adapter is checked and stored", extra={"adapter": adapter.name, "source": result.source})


def _adapter_of(request: ImportRequest) -> ForeignAdapter:
    try:
        return request.sweep.adapter(request.adapter)
    except KeyError as error:
        raise ConfigError(
            "the sweep has no such adapter",
            field="request.adapter",
            value=request.adapter,
            remedy=f"It has {', '.join(adapter.name for adapter in request.sweep.adapters) or 'none'}.",
        ) from error


def _prepared(request: ImportRequest, store: ObjectStore) -> PrepareResult:
    prepared = read_result(store, request.layout.prepare, PrepareResult)
    if prepared is None:
        raise PermanentError(f"{request.layout.prepare} in {store.url} has no manifest: the stage is not finished")
    return prepared


def _require_as_prepared(adapter: ForeignAdapter, fetched: FetchedAdapter, prepared: PrepareResult) -> None:
    """Check an adapter of a local folder against the digests of the prepare stage.

    Raises:
        ConfigError: it was changed since.
    """
    files = {f"{adapter.name}/{path.name}": path for path in (fetched.config, fetched.weights)}
    recorded = {name: digest for name, digest in prepared.inputs.get("adapters", {}).items() if name in files}
    if adapter.path is not None and recorded:
        require_same(recorded, files, field=adapter.field, folder=adapter.path)


def _write(folder: Path, pairs: Mapping[str, Pair], settings: Mapping[str, Any], *, base_model: str) -> str:
    """Write the adapter as PEFT and vLLM load it; returns the SHA-256 over both files, the configuration first."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "bias": "none",
        **settings,
    }
    contents = {
        ADAPTER_CONFIG_FILE: (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        ADAPTER_WEIGHTS_FILE: safetensors.torch.save(
            {f"{PREFIX}{layer}.lora_A.weight": pair.a for layer, pair in pairs.items()}
            | {f"{PREFIX}{layer}.lora_B.weight": pair.b for layer, pair in pairs.items()},
            metadata={"format": "pt"},
        ),
    }
    digest = hashlib.sha256()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        digest.update(data)
    return digest.hexdigest()


def _result(
    adapter: ForeignAdapter,
    fetched: FetchedAdapter,
    config: AdapterConfig,
    pairs: Mapping[str, Pair],
    scaling: Scaling,
) -> ImportResult:
    return ImportResult(
        source=fetched.source,
        revision=fetched.revision,
        source_files={path.name: sha256_of(path) for path in (fetched.config, fetched.weights)},
        adapter_sha256="",
        ranks=tuple(sorted(set(scaling.ranks.values()))),
        alphas=tuple(sorted(set(scaling.alphas.values()))),
        use_rslora=scaling.use_rslora,
        target_modules=tuple(sorted({layer.rpartition(".")[2] for layer in pairs})),
        layers=len(pairs),
        parameters=sum(pair.a.numel() + pair.b.numel() for pair in pairs.values()),
        peft_version=config.peft_version,
        base_model=config.base_model,
        trained_under=adapter.trained_under,
        warnings=(),
    )


def _warnings(
    config: AdapterConfig, pairs: Mapping[str, Pair], scaling: Scaling, sweep: RecipeSweep
) -> tuple[str, ...]:
    found = []
    if config.base_model is not None and _last(config.base_model) != _last(sweep.model.label):
        found.append(
            f"The adapter names {config.base_model} as its base model, and this sweep serves {sweep.model.label}. "
            "Their shapes agree; whether their weights do is not known."
        )
    if not any(scaling.scale(layer) and bool(pair.b.any()) for layer, pair in pairs.items()):
        found.append("The adapter changes nothing: its B matrices, or its scale, are all zero.")
    return tuple(found)


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].casefold()
