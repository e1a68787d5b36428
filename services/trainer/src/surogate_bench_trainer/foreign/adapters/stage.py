"""The import stage: one foreign adapter becomes the files that a training run would have left."""

import logging
from pathlib import Path

from surogate_bench.contract import ADAPTER_FOLDER
from surogate_bench.errors import ConfigError
from surogate_bench.inputs.content import require_same
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.results import ImportResult, PrepareResult
from surogate_bench.specs import ForeignAdapter
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.publication import new_manifest, publish_stage, read_manifest, require_manifest
from surogate_bench.stages.requests import ImportRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.foreign.adapters.base_layers import read_base_layers
from surogate_bench_trainer.foreign.adapters.checked import check_adapter, last_part, write_adapter
from surogate_bench_trainer.foreign.adapters.sources import FetchedAdapter, fetch_adapter

_log = logging.getLogger(__name__)


def import_stage(request: ImportRequest, work_dir: Path) -> None:
    """Fetch, check and publish one adapter; a finished import is left unchanged.

    Raises:
        ConfigError: the sweep has no such adapter, or vLLM does not serve it with the sweep's model.
        PermanentError: the prepare stage is missing.
        TransientError: the store or the hub is unavailable.
    """
    store = open_store(request.store)
    prefix = request.layout.train(request.adapter)
    if read_manifest(store, prefix) is not None:
        return
    adapter = _adapter_of(request)
    prepared = require_manifest(store, request.layout.prepare).require_result(PrepareResult)
    write_progress(work_dir, Progress(phase=Activity.READING_BASE_MODEL))
    location = locate_model(request.sweep.model, store=store, layout=request.layout, cache=work_dir / "model")
    base = read_base_layers(location)
    max_rank = request.sweep.serving.max_lora_rank
    write_progress(work_dir, Progress(phase=Activity.FETCHING))
    fetched = fetch_adapter(adapter, work_dir / "source", largest=base.largest_file(max_rank))
    _require_as_prepared(adapter, fetched, prepared)
    write_progress(work_dir, Progress(phase=Activity.CHECKING))
    checked = check_adapter(fetched.config.parent, base, max_rank=max_rank, field=adapter.field)
    outputs = work_dir / "outputs"
    base_model = request.sweep.model.label
    digest = write_adapter(outputs / ADAPTER_FOLDER, checked, base, base_model=base_model)
    result = ImportResult(
        source=fetched.source,
        revision=fetched.revision,
        adapter_sha256=digest,
        trained_under=adapter.trained_under,
        warnings=checked.warnings(request.sweep, {last_part(base_model)}),
        **checked.facts(),
    )
    for warning in result.warnings:
        _log.warning("%s: %s", adapter.name, warning)
    write_progress(work_dir, Progress(phase=Activity.UPLOADING))
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


def _require_as_prepared(adapter: ForeignAdapter, fetched: FetchedAdapter, prepared: PrepareResult) -> None:
    """Check an adapter of a local folder against the digests of the prepare stage.

    Raises:
        ConfigError: it was changed since.
    """
    files = {f"{adapter.name}/{path.name}": path for path in (fetched.config, fetched.weights)}
    recorded = {name: digest for name, digest in prepared.inputs.get("adapters", {}).items() if name in files}
    if adapter.path is not None and recorded:
        require_same(recorded, files, field=adapter.field, folder=adapter.path)
