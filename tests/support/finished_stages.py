"""Synthetic finished stages, as services publish them, for tests of what reads them."""

import hashlib
from pathlib import Path

from surogate_bench.results import (
    CheckResult,
    EvalResult,
    ForeignTrainResult,
    ImportResult,
    Metric,
    PrepareResult,
    SplitInfo,
    TrainResult,
)
from surogate_bench.stages.manifest import Manifest, StageResult
from surogate_bench.stages.publication import new_manifest, publish_stage
from surogate_bench.stages.requests import (
    AnyRequest,
    CheckRequest,
    EvaluateRequest,
    ForeignTrainRequest,
    ImportRequest,
    PrepareRequest,
    ServeRequest,
    TrainRequest,
)
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.domain.tasks import Task


def publish(store: ObjectStore, task: Task, scratch: Path, **changes: object) -> None:
    """Publish what the task's service would have: content that follows from the request alone."""
    assert task.output is not None
    folder = scratch / task.name
    folder.mkdir(parents=True, exist_ok=True)
    manifest = manifest_of(task.request, **changes)
    if isinstance(task.request, TrainRequest):
        (folder / "adapter").mkdir(exist_ok=True)
        (folder / "adapter" / "adapter_model.safetensors").write_bytes(f"weights of {manifest.run}".encode())
    elif isinstance(task.request, EvaluateRequest):
        (folder / "samples.jsonl").write_bytes(b"")
    assert publish_stage(store, task.output, folder, manifest)


def manifest_of(request: AnyRequest, **changes: object) -> Manifest:
    """Make the manifest of a finished stage, without machine and versions.

    Args:
        request: Of the stage.
        changes: Values of fields of its result.
    """
    assert not isinstance(request, ServeRequest)
    result = _result(request)
    changed = type(result).model_validate(result.model_dump() | changes)
    return new_manifest(request, changed).without_details()


def _result(request: AnyRequest) -> StageResult:
    match request:
        case PrepareRequest():
            return _prepared(request)
        case CheckRequest():
            return CheckResult()
        case TrainRequest():
            return _trained(request)
        case ImportRequest():
            return _imported(request)
        case ForeignTrainRequest():
            return _foreign_trained(request)
    assert isinstance(request, EvaluateRequest)
    return _scored(request)


def _prepared(request: PrepareRequest) -> PrepareResult:
    data = request.sweep.data
    entries = request.sweep.evaluation.tasks
    tasks = {each.name: _split(f"test {each.data.as_data.label}") for each in entries if each.data is not None}
    splits = {name: _split(f"{name} {data.label} {data.seed}") for name in ("train", "validation", "test")}
    inputs = {"model": {"model.safetensors": _sha256("weights")}, "tasks": {"task.yaml": _sha256("task")}}
    source = request.sweep.model.label
    return PrepareResult.model_validate(
        {
            "data": splits,
            "model_source": source,
            "model_in_store": False,
            "inputs": inputs,
            "full_attention": True,
            "tasks": tasks,
        }
    )


def _split(content: str) -> SplitInfo:
    return SplitInfo(records=8, sha256=_sha256(content))


def _trained(request: TrainRequest) -> TrainResult:
    decides = f"{request.recipe} {request.seed} {request.sweep.training} {request.sweep.engine}"
    return TrainResult(
        steps=2, tokens=100, train_seconds=1.0, tokens_per_second=100.0, side_by_side=1, threads=1,
        peak_memory_bytes=1, weight_bytes=1, operand_cache_bytes=0, final_train_loss=1.0, validation=(),
        adapter_sha256=_sha256(decides), resumed_from_step=0,
    )  # fmt: skip


def _imported(request: ImportRequest) -> ImportResult:
    """The content of an adapter follows from where it lies."""
    adapter = request.sweep.adapter(request.adapter)
    return ImportResult(
        source=adapter.label, revision=None, source_files={}, adapter_sha256=_sha256(adapter.label), ranks=(4,),
        alphas=(8.0,), use_rslora=False, target_modules=("q_proj",), layers=1, parameters=1, peft_version=None,
        base_model=None, trained_under=adapter.trained_under, warnings=("Its base model has another name.",),
    )  # fmt: skip


def _foreign_trained(request: ForeignTrainRequest) -> ForeignTrainResult:
    trainer = request.sweep.trainer(request.trainer)
    return ForeignTrainResult(
        command=trainer.command, seconds=20.0, peak_memory_bytes=1, side_by_side=1, threads=1, steps=2, tokens=None,
        train_seconds=None, final_train_loss=1.5, validation=(), served_validation_loss=1.25, source_files={},
        adapter_sha256=_sha256(f"{trainer.label} {request.seed} {request.sweep.training}"), ranks=(4,), alphas=(8.0,),
        use_rslora=False, target_modules=("q_proj",), layers=1, parameters=1, peft_version=None, base_model=None,
        trained_under=trainer.trained_under, warnings=("It reported no speed.",),
    )  # fmt: skip


def _scored(request: EvaluateRequest) -> EvalResult:
    half = Metric(accuracy=0.5, stderr=0.1)
    return EvalResult(
        task=request.task or request.sweep.evaluation.task, model=request.run, served_under=request.under,
        merged=request.merged, samples=8, strict=half, flexible=half, empty_answers=0, seconds=1.0,
        parallel_evaluations=1,
    )  # fmt: skip


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
