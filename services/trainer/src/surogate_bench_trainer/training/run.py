"""One training run, from the prepared data to the published adapter."""

import logging
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from surogate_bench.contract import ADAPTER_FOLDER, DATA_FOLDER, INPUT_SCALES_FILE, METRICS_FILE, split_file
from surogate_bench.errors import PermanentError
from surogate_bench.layout import run_name
from surogate_bench.processes.progress import Activity, Progress
from surogate_bench.results import TrainResult
from surogate_bench.stages.model_source import ModelLocation, locate_model
from surogate_bench.stages.prepared import special_tokens
from surogate_bench.stages.publication import new_manifest, publish_stage
from surogate_bench.stages.requests import TrainRequest
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_quantization.fusion import require_compiler
from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.data.records import read_prepared
from surogate_bench_trainer.training.adapter import save_adapter, save_input_scales
from surogate_bench_trainer.training.checkpoint import Checkpoint, delete_checkpoints, load_newest, save_checkpoint
from surogate_bench_trainer.training.distributed.peers import ALONE, Peers
from surogate_bench_trainer.training.learner import Learner
from surogate_bench_trainer.training.loop import TrainingLoop
from surogate_bench_trainer.training.metrics import MetricsLog
from surogate_bench_trainer.training.out_of_memory import is_out_of_memory
from surogate_bench_trainer.training.progress import ProgressReporter, memory_in_use
from surogate_bench_trainer.training.served_validation import served_validation_loss
from surogate_bench_trainer.training.setup import (
    TrainingData,
    build_data,
    build_learner,
    configure_process,
    load_base,
    training_device,
)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Run:
    """One attempt of a run: its state, and the place of its checkpoints."""

    store: ObjectStore
    prefix: str
    learner: Learner
    metrics: MetricsLog
    earlier_peak: int

    @property
    def checkpoints(self) -> str:
        """Prefix of the run's checkpoints in the store."""
        return f"{self.prefix}/checkpoints"

    def save(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Store a checkpoint, unless another process does."""
        if not self.learner.peers.leads:
            return
        checkpoint = Checkpoint(
            step=step, tensors=tensors, metrics=self.metrics.content(), peak_memory_bytes=self.peak_memory()
        )
        save_checkpoint(self.store, self.checkpoints, checkpoint)
        _log.info("checkpoint of step %d stored", step)

    def peak_memory(self) -> int:
        """Return the peak over all attempts, in bytes: device memory on a GPU, resident set size on a CPU."""
        if self.learner.device.type == "cuda":
            current = torch.cuda.max_memory_allocated(self.learner.device)
        else:
            current = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return max(current, self.earlier_peak)


def run_training(request: TrainRequest, store: ObjectStore, work_dir: Path, peers: Peers = ALONE) -> None:
    """Train from the newest checkpoint on, and publish the adapter; see :mod:`surogate_bench_trainer.train_stage`.

    Args:
        request: The training.
        store: The request's.
        work_dir: Has the prepared data.
        peers: The processes that train the run together, only the first of which writes.

    Raises:
        PermanentError: training diverged or memory ran out.
    """
    configure_process(request.threads)
    try:
        _train(request, store, work_dir, peers)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise _out_of_memory(error) from error


def _train(request: TrainRequest, store: ObjectStore, work_dir: Path, peers: Peers) -> None:
    device = training_device()
    require_compiler(device)
    report = ProgressReporter(work_dir, lambda: memory_in_use(device)) if peers.leads else _ignore
    report(Progress(phase=Activity.LOADING))
    cache = work_dir / "model"
    location = locate_model(request.sweep.model, store=store, layout=request.layout, cache=cache)
    # The trained model is released when _learn returns: the validation below loads the base model again.
    learned = _learn(request, store, work_dir, location, report, peers)
    if learned is None:
        return
    total = learned.result.steps
    if request.sweep.recipe(request.recipe).quantizes:
        report(Progress(phase=Activity.VALIDATING_AS_SERVED, step=total, total=total))
        loss = served_validation_loss(location, learned.adapter, learned.validation, device)
    else:
        loss = learned.result.validation[-1].loss  # trained with the weights and products that are served
    report(Progress(phase=Activity.UPLOADING, step=total, total=total))
    result = learned.result.model_copy(update={"served_validation_loss": loss})
    _publish(request, store, learned, result, device)


def _ignore(_: Progress) -> None:
    """Report nothing: the first process does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """Results of a run whose training has ended and whose model has been released."""

    result: TrainResult
    """Complete except for the validation loss on the served base model."""
    engine: str
    outputs: Path
    validation: list[PackedBatch]
    checkpoints: str

    @property
    def adapter(self) -> Path:
        """Folder of the saved adapter."""
        return self.outputs / ADAPTER_FOLDER


def _learn(
    request: TrainRequest,
    store: ObjectStore,
    work_dir: Path,
    location: ModelLocation,
    report: Callable[[Progress], None],
    peers: Peers,
) -> _Learned | None:
    """Train to the last step, and write adapter and metrics to ``<work_dir>/outputs``; None if another process does."""
    sweep, device = request.sweep, training_device()
    base, tokenizer = load_base(location, device)
    prepared = work_dir / "prepared" / DATA_FOLDER
    splits = {name: read_prepared(prepared / split_file(name)) for name in ("train", "validation")}
    added = special_tokens(store, request.layout)
    data = build_data(splits, tokenizer, sweep, seed=request.seed, device=device, special_tokens=added is not None)
    recipe, steps = sweep.recipe(request.recipe), data.schedule.total_steps
    learner = replace(build_learner(base, sweep, recipe, seed=request.seed, steps=steps), peers=peers)
    prefix = request.layout.train(run_name(request.recipe, request.seed))
    checkpoint = load_newest(store, f"{prefix}/checkpoints")
    first = 0 if checkpoint is None else checkpoint.step
    if checkpoint is not None:
        learner.restore(checkpoint.tensors, step=first)
        _log.info("continuing after step %d", first)
    peers.require_same_start(first, learner.optimizer.state_dict()["master"])
    _log_start(request, learner, data)
    metrics = MetricsLog(work_dir if peers.leads else None, b"" if checkpoint is None else checkpoint.metrics)
    run = _Run(store, prefix, learner, metrics, 0 if checkpoint is None else checkpoint.peak_memory_bytes)
    TrainingLoop(
        learner=learner,
        training=sweep.training,
        schedule=data.schedule,
        samples=data.samples,
        validation=data.validation,
        metrics=metrics,
        save=run.save,
        report=report,
    ).run(first)
    if not peers.leads:
        return None
    if recipe.quantizes and first < metrics.steps:
        run.save(metrics.steps, learner.snapshot())  # interrupting the last validation repeats no training
    return _Learned(
        result=_save_outputs(request, run, work_dir / "outputs", resumed_from=first),
        engine=learner.recipe.engine_name,
        outputs=work_dir / "outputs",
        validation=data.validation,
        checkpoints=run.checkpoints,
    )


def _log_start(request: TrainRequest, learner: Learner, data: TrainingData) -> None:
    _log.info(
        "training on %s: %d samples, %d steps",
        learner.device,
        len(data.samples),
        data.schedule.total_steps,
        extra={
            "recipe": request.recipe,
            "engine": learner.recipe.engine_name,
            "weight_bytes": learner.recipe.weight_bytes,
            "covered_share": round(learner.recipe.covered_share, 4),
            "threads": torch.get_num_threads(),
            "processes": learner.peers.processes,
        },
    )


def _save_outputs(request: TrainRequest, run: _Run, outputs: Path, *, resumed_from: int) -> TrainResult:
    digest = save_adapter(run.learner.model, outputs / ADAPTER_FOLDER)
    (outputs / METRICS_FILE).write_bytes(run.metrics.content())
    if scales := run.learner.recipe.input_scales():
        save_input_scales(scales, outputs / INPUT_SCALES_FILE)
    tokens, seconds = run.metrics.totals()
    return TrainResult(
        steps=run.metrics.steps,
        tokens=tokens,
        train_seconds=seconds,
        tokens_per_second=tokens / seconds,
        side_by_side=request.side_by_side,
        threads=torch.get_num_threads(),
        processes=run.learner.peers.processes,
        peak_memory_bytes=run.peak_memory(),
        weight_bytes=run.learner.recipe.weight_bytes,
        operand_cache_bytes=run.learner.recipe.operand_cache_bytes,
        covered_share=run.learner.recipe.covered_share,
        kept_layers=run.learner.recipe.kept,
        padded_layers=run.learner.recipe.padded,
        final_train_loss=run.metrics.final_train_loss(),
        validation=run.metrics.validations(),
        adapter_sha256=digest,
        resumed_from_step=resumed_from,
    )


def _publish(
    request: TrainRequest, store: ObjectStore, learned: _Learned, result: TrainResult, device: torch.device
) -> None:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    manifest = new_manifest(request, result, engine=learned.engine, gpu=gpu)
    publish_stage(store, request.layout.train(manifest.run), learned.outputs, manifest)
    logged = {"final_train_loss", "served_validation_loss", "train_seconds", "tokens_per_second", "peak_memory_bytes"}
    _log.info("training has ended and the adapter is stored", extra=result.model_dump(include=logged))
    delete_checkpoints(store, learned.checkpoints)


def _out_of_memory(error: RuntimeError) -> PermanentError:
    return PermanentError(
        f"memory ran out while training: {str(error).splitlines()[0]} "
        "Lower training.micro_batch_size or training.max_length"
    )
