"""The train stage up to the point where torch is needed, so that a complete stage returns without importing it."""

from pathlib import Path

from surogate_bench.contract import DATA_FOLDER
from surogate_bench.layout import run_name
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.stages.publication import fetch_stage, read_manifest
from surogate_bench.stages.requests import TrainRequest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_trainer.processes import RENDEZVOUS_FILE, train_together


def train_stage(request: TrainRequest, work_dir: Path) -> None:
    """Train one adapter and publish it. A stage that is already complete is not repeated.

    Raises:
        ConfigError: the sweep has no such recipe, or the model or its data cannot be used.
        UnsupportedRecipeError: this machine cannot run the recipe.
        ProcessFailedError: one of several processes of the training failed.
        PermanentError: the prepare stage is missing, or training diverged.
        TransientError: the store is unavailable.
    """
    store = open_store(request.store)
    if request.rank is not None:
        _train_as_one_of_several(request, request.rank, store, work_dir)
        return
    prefix = request.layout.train(run_name(request.recipe, request.seed))
    if read_manifest(store, prefix) is not None:
        store.delete([info.key for info in store.list(f"{prefix}/checkpoints")])
        return
    request.sweep.require_recipe(request.recipe, field="request.recipe")
    write_progress(work_dir, Progress(phase=Activity.STARTING))
    fetch_stage(store, request.layout.prepare, work_dir / "prepared", under=f"{DATA_FOLDER}/")
    if request.sweep.training.gpus > 1:
        train_together(request, work_dir)
        return

    from surogate_bench_trainer.training.run import run_training  # noqa: PLC0415 - imports torch

    run_training(request, store, work_dir)


def _train_as_one_of_several(request: TrainRequest, rank: int, store: ObjectStore, own: Path) -> None:
    """Train in a process that :func:`train_together` has started, whose own folder is below that of the training."""
    from surogate_bench_trainer.training.distributed.rank import run_rank  # noqa: PLC0415 - imports torch

    run_rank(request, rank, store, own.parents[1], own.parent / RENDEZVOUS_FILE)
