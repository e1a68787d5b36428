"""Stages that look as real services leave them, made up: for tests of what is done with finished stages."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from surogate_bench.layout import run_name
from surogate_bench.manifest import Manifest, publish_stage
from surogate_bench.requests import CheckRequest, EvaluateRequest, PrepareRequest, TrainRequest
from surogate_bench.results import CheckResult, EvalResult, Metric, PrepareResult, SplitInfo, TrainResult
from surogate_bench.stage_identity import SCORING_VERSION, TRAINING_VERSION
from surogate_bench.store import ObjectStore
from surogate_bench_orchestrator.domain.tasks import Task


def publish(store: ObjectStore, task: Task, scratch: Path) -> None:
    """Publish what the task's service would have: content that follows from the request alone."""
    request = task.request
    assert task.output is not None
    folder = scratch / task.name
    folder.mkdir(parents=True, exist_ok=True)
    stage: str
    result: PrepareResult | CheckResult | TrainResult | EvalResult
    if isinstance(request, PrepareRequest):
        stage, run, result = "prepare", "prepare", _prepared(request)
    elif isinstance(request, CheckRequest):
        stage, run, result = "check", request.subject, CheckResult()
    elif isinstance(request, TrainRequest):
        stage, run, result = "train", run_name(request.recipe, request.seed), _trained(request)
        (folder / "adapter").mkdir(exist_ok=True)
        (folder / "adapter" / "adapter_model.safetensors").write_bytes(f"weights of {run}".encode())
    else:
        assert isinstance(request, EvaluateRequest)
        stage, run, result = "eval", request.run, _scored(request)
        (folder / "samples.jsonl").write_bytes(b"")
    manifest = Manifest(
        stage=stage,
        run=run,
        spec_hash=request.sweep.spec_hash,
        created=datetime.now(UTC),
        files={},
        hardware={},
        versions={},
        result=result.model_dump(mode="json"),
        procedure_version={"train": TRAINING_VERSION, "eval": SCORING_VERSION}.get(stage, 1),
    )
    assert publish_stage(store, task.output, folder, manifest)


def _prepared(request: PrepareRequest) -> PrepareResult:
    data = request.sweep.data
    splits = {name: _split(f"{name} {data.label} {data.seed}") for name in ("train", "validation", "test")}
    inputs = {"model": {"model.safetensors": _sha256("weights")}, "tasks": {"task.yaml": _sha256("task")}}
    source = request.sweep.model.label
    return PrepareResult.model_validate(
        {"data": splits, "model_source": source, "model_in_store": False, "inputs": inputs, "full_attention": True}
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


def _scored(request: EvaluateRequest) -> EvalResult:
    return EvalResult(
        task=request.sweep.evaluation.task, model=request.run, samples=8, strict=Metric(accuracy=0.5, stderr=0.1),
        flexible=Metric(accuracy=0.5, stderr=0.1), empty_answers=0, seconds=1.0, parallel_evaluations=1,
    )  # fmt: skip


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
