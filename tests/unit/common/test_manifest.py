"""What a manifest holds, and which of it survives other versions."""

import json
from pathlib import Path
from typing import Any

import pytest
from finished_stages import manifest_of
from pydantic import ValidationError
from sweeps import small_sweep

from surogate_bench.errors import PermanentError
from surogate_bench.machine.hardware import Hardware
from surogate_bench.results import CheckResult, EvalResult, PrepareResult, TrainResult
from surogate_bench.stages.manifest import Manifest, StageResult, UnreadableResult, result_of
from surogate_bench.stages.publication import new_manifest, read_manifest, read_result, reuse_stage
from surogate_bench.stages.requests import AnyRequest, CheckRequest, EvaluateRequest, PrepareRequest, TrainRequest
from surogate_bench.store.object_store import ObjectStore, open_store

COMMON: dict[str, Any] = {"sweep": small_sweep(), "store": "file:///unused"}
PREPARE, CHECK = PrepareRequest(**COMMON), CheckRequest(subject="task", **COMMON)
TRAIN = TrainRequest(recipe="bf16", seed=0, **COMMON)
EVALUATE = EvaluateRequest(run="bf16-s0", server_url="http://unused", **COMMON)

FIRST_VERSION = """{
  "stage": "train", "run": "bf16-s0", "spec_hash": "ae57b591a714", "created": "2026-01-02T03:04:05.678901Z",
  "files": {"metrics.jsonl": {"sha256": "ab12", "size": 3}}, "engine": "torch",
  "hardware": {"cpu": "Example CPU 3000", "cores": 2, "memory_bytes": 8589934592, "system": "Linux-6.1",
    "python": "3.11.9", "gpu": "Example GPU", "driver": "570"},
  "versions": {"torch": "2.13.0"},
  "result": {"steps": 300, "tokens": 123456, "train_seconds": 31.5, "tokens_per_second": 5123.4, "side_by_side": 2,
    "threads": 1, "peak_memory_bytes": 943718400, "weight_bytes": 1572864, "operand_cache_bytes": 0,
    "final_train_loss": 0.31, "validation": [{"step": 300, "loss": 0.29}], "adapter_sha256": "cd34",
    "resumed_from_step": 0}
}"""
"""As the first version wrote it, and a key of the hardware that no version here knows."""


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("request_", "stage", "run", "kind"),
    [
        (PREPARE, "prepare", "prepare", PrepareResult),
        (CHECK, "check", "task", CheckResult),
        (TRAIN, "train", "bf16-s0", TrainResult),
        (EVALUATE, "eval", "bf16-s0", EvalResult),
    ],
)
def test_the_type_of_a_result_follows_from_the_stage(
    request_: AnyRequest, stage: str, run: str, kind: type[StageResult]
) -> None:
    manifest = Manifest.model_validate_json(manifest_of(request_).model_dump_json())
    assert (manifest.stage, manifest.run, type(manifest.result)) == (stage, run, kind)
    assert result_of(manifest, kind) is manifest.require_result(kind)


def test_a_result_of_another_stage_is_refused() -> None:
    with pytest.raises(ValidationError, match="a train stage has a TrainResult, not a CheckResult"):
        new_manifest(TRAIN, CheckResult())
    with pytest.raises(PermanentError, match="has no usable result"):
        manifest_of(TRAIN).require_result(EvalResult)
    assert result_of(manifest_of(TRAIN), EvalResult) is None
    assert result_of(None, EvalResult) is None


def test_a_manifest_of_the_first_version_is_read_and_referred_to_without_adding_a_key(store: ObjectStore) -> None:
    store.put("old/manifest.json", FIRST_VERSION.encode())
    trained = read_result(store, "old", TrainResult)
    assert trained is not None
    assert (trained.final_train_loss, trained.served_validation_loss, trained.validation[0].step) == (0.31, None, 300)
    assert reuse_stage(store, "new", run="bf16-s7", source="old")
    expected = json.loads(FIRST_VERSION) | {"run": "bf16-s7", "reused_from": "old"}
    assert json.loads(store.get("new/manifest.json") or b"") == expected


def test_a_result_with_a_key_of_a_later_version_is_kept_as_it_is_and_used_by_nobody(store: ObjectStore) -> None:
    document = json.loads(FIRST_VERSION)
    document["result"]["of_a_later_version"] = {"nested": [1, None]}
    store.put("later/manifest.json", json.dumps(document).encode())
    manifest = read_manifest(store, "later")
    assert manifest is not None  # the stage is complete
    assert isinstance(manifest.result, UnreadableResult)
    assert result_of(manifest, TrainResult) is None
    with pytest.raises(PermanentError, match="the train manifest of bf16-s0 has no usable result"):
        manifest.require_result(TrainResult)
    assert reuse_stage(store, "copy", run="bf16-s0", source="later")
    assert json.loads(store.get("copy/manifest.json") or b"") == document | {"reused_from": "later"}


def test_unknown_hardware_is_left_out_of_the_json() -> None:
    assert Hardware().model_dump_json() == "{}"
    assert json.loads(Hardware(cpu="x", cores=2).model_dump_json()) == {"cpu": "x", "cores": 2}
    hardware = new_manifest(TRAIN, manifest_of(TRAIN).require_result(TrainResult), gpu="Example GPU").hardware
    assert list(hardware.model_dump()) == ["cpu", "cores", "memory_bytes", "system", "python", "gpu"]
