"""The stage in which other software trains an adapter: request, command, checks, and the published result.

On one machine, one process does everything. If the command runs in a separate container, a container of this service
runs before it and writes its input into a shared folder, and another one runs after it, checks its output there and
publishes it, without reading anything else in that folder.
"""

import logging
from pathlib import Path

import torch

from surogate_bench.contract import DATA_FOLDER
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.layout import run_name
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.results import ForeignTrainResult, PrepareResult
from surogate_bench.specs import ForeignTrainer
from surogate_bench.stages.local_inputs import require_unchanged
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.publication import fetch_stage, new_manifest, publish_stage, read_manifest
from surogate_bench.stages.requests import ForeignTrainRequest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_trainer.foreign.trainers.attempt import Attempt
from surogate_bench_trainer.foreign.trainers.collecting import collect
from surogate_bench_trainer.foreign.trainers.giving import give, give_copies
from surogate_bench_trainer.foreign.trainers.running import run
from surogate_bench_trainer.training.setup import configure_process

_log = logging.getLogger(__name__)


def foreign_train_stage(request: ForeignTrainRequest, work_dir: Path) -> None:
    """Let a foreign trainer train one adapter, then check and publish it; a finished stage is left unchanged.

    Raises:
        ConfigError: the sweep has no such trainer, its program cannot be started, or its files were changed.
        ForeignTrainerError: it failed, passed its deadline, or left no adapter that vLLM serves.
        PermanentError: the prepare stage is missing; or this only prepares a run whose result is already stored.
        TransientError: it was killed or asks for another attempt, or the store is unavailable.
    """
    store = open_store(request.store)
    prefix = request.layout.train(run_name(request.trainer, request.seed))
    step = request.in_container.step if request.in_container else None
    if read_manifest(store, prefix) is not None:
        if step == "prepare":
            raise PermanentError(f"{prefix} in {store.url} is finished: there is nothing left to train")
        return
    attempt = _begin(request, store, work_dir)
    if step == "prepare":
        give_copies(attempt)
        return
    result = collect(attempt, None if step == "collect" else run(attempt, give(attempt)))
    _publish(attempt, result, store, prefix)


def _begin(request: ForeignTrainRequest, store: ObjectStore, work_dir: Path) -> Attempt:
    """Fetch what every part of an attempt needs: the prepared data and the model."""
    trainer = _trainer_of(request)
    write_progress(work_dir, Progress(phase=Activity.STARTING))
    manifest = fetch_stage(store, request.layout.prepare, work_dir / "prepared", under=f"{DATA_FOLDER}/")
    prepared = manifest.require_result(PrepareResult)
    if request.in_container is None:
        require_unchanged(prepared, request.sweep, ["trainers"])
    configure_process(request.threads)
    location = locate_model(request.sweep.model, store=store, layout=request.layout, cache=work_dir / "model")
    return Attempt(
        request=request,
        trainer=trainer,
        location=location,
        work_dir=work_dir,
        special_tokens=prepared.special_tokens is not None,
    )


def _trainer_of(request: ForeignTrainRequest) -> ForeignTrainer:
    try:
        return request.sweep.trainer(request.trainer)
    except KeyError as error:
        raise ConfigError(
            "the sweep has no such trainer",
            field="request.trainer",
            value=request.trainer,
            remedy=f"It has {', '.join(each.name for each in request.sweep.trainers) or 'none'}.",
        ) from error


def _publish(attempt: Attempt, result: ForeignTrainResult, store: ObjectStore, prefix: str) -> None:
    for warning in result.warnings:
        _log.warning("%s: %s", attempt.trainer.name, warning)
    write_progress(attempt.work_dir, Progress(phase=Activity.UPLOADING))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    publish_stage(store, prefix, attempt.outputs, new_manifest(attempt.request, result, gpu=gpu))
    logged = {"final_train_loss", "served_validation_loss", "seconds", "peak_memory_bytes"}
    _log.info("the trained adapter is checked and stored", extra=result.model_dump(include=logged))
