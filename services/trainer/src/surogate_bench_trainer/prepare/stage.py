"""The prepare stage: checks model and data, and publishes the data splits."""

import logging
from pathlib import Path

from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.stages.local_inputs import INPUTS
from surogate_bench.stages.publication import new_manifest, publish_stage, read_manifest
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.prepare.checking import check_inputs

_log = logging.getLogger(__name__)


def prepare_stage(request: PrepareRequest, work_dir: Path) -> None:
    """Check model and data, and publish the data splits and, if it was converted, the model.

    Cheap checks come first. A stage that is already complete is not repeated.

    Raises:
        ConfigError: the sweep, its model or its data cannot be used.
        TransientError: the hub or the store is unavailable.
    """
    store = open_store(request.store)
    prefix = request.layout.prepare
    if read_manifest(store, prefix) is not None:
        return
    here = [name for name in INPUTS if not (request.in_images and name == "trainers")]
    checked = check_inputs(request, store, work_dir, here=here)
    for warning in checked.result.warnings:
        _log.warning("%s", warning)
    write_progress(work_dir, Progress(phase=Activity.UPLOADING))
    publish_stage(store, prefix, checked.outputs, new_manifest(request, checked.result))
    records = {name: info.records for name, info in checked.result.data.items()}
    _log.info("the data has been checked and stored", extra={"records": records, "model": checked.result.model_source})
