"""The trainer as a process, on the shipped model: killed or stopped, it continues bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gates import Gate
from sweeps import small_sweep
from waiting import PATIENCE_S, until

from surogate_bench.errors import ExitCode
from surogate_bench.processes.progress import read_termination
from surogate_bench.results import TrainResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest, StageRequest, TrainRequest
from surogate_bench.store.object_store import open_store

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def sweep() -> RecipeSweep:
    """14 steps with delayed scaling over 5 steps, stochastic rounding, and dropout."""
    short = {"name": "fp8-short", "title": "FP8", "weight_storage": "bf16", "compute": "fp8-hybrid"}
    return small_sweep(
        name="killed",
        data={"train_size": 200, "validation_size": 20, "test_size": 20},
        training={
            "max_steps": 14,
            "max_length": 256,
            "micro_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "learning_rate": 2e-3,
            "lora": {"r": 8, "alpha": 16, "dropout": 0.1},
            "eval_steps": 5,
            "checkpoint_steps": 4,
        },
        recipes=["fp4", short | {"fp8_amax_history_length": 5}],
        serving={"max_model_len": 512},
        evaluation={"max_gen_toks": 64},
    )


def start(request: StageRequest, folder: Path, gate: Gate | None = None) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "request.json"
    path.write_text(request.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "surogate_bench_trainer", str(path), "--work-dir", str(folder)]
    environment = gate.environment() if gate else dict(os.environ)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stderr=log, env=environment | {"OMP_NUM_THREADS": "1"})


def run(request: StageRequest, folder: Path) -> int:
    return start(request, folder).wait(PATIENCE_S)


def stopped_at(step: int, number: signal.Signals, request: TrainRequest, folder: Path) -> int:
    """Send a signal to a trainer after the given step and return its exit code."""
    gate = Gate(folder.with_name(f"gate-{step}"))
    gate.close_training(step)
    process = start(request, folder, gate)
    until(lambda: gate.waiting() or process.poll() is not None, f"step {step}")
    process.send_signal(number)
    gate.open()  # one that was asked to end does so between two micro-batches
    return process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def prepared_store(sweep: RecipeSweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    assert run(PrepareRequest(sweep=sweep, store=str(folder / "store")), folder / "work") == ExitCode.OK
    return folder / "store"


def outcome(request: TrainRequest) -> tuple[TrainResult, list[dict[str, Any]]]:
    prefix = request.layout.train(f"{request.recipe}-s0")
    store = open_store(request.store)
    manifest, metrics = read_manifest(store, prefix), store.get(f"{prefix}/metrics.jsonl")
    assert manifest is not None
    assert metrics is not None
    lines = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in metrics.splitlines()]
    assert store.list(f"{prefix}/checkpoints") == []
    return manifest.require_result(TrainResult), lines


@pytest.mark.parametrize(
    ("recipe", "number", "code", "resumed_from"),
    [
        ("fp4", signal.SIGKILL, -signal.SIGKILL, 8),
        pytest.param("fp8-short", signal.SIGTERM, ExitCode.TRANSIENT, 10, marks=pytest.mark.exhaustive),
    ],
)
def test_a_run_killed_or_stopped_ends_with_the_bytes_of_one_that_was_not(
    sweep: RecipeSweep, prepared_store: Path, tmp_path: Path, recipe: str, number: signal.Signals, code: int,
    resumed_from: int,
) -> None:  # fmt: skip
    straight, disturbed = (
        TrainRequest(
            sweep=sweep, store=str(shutil.copytree(prepared_store, tmp_path / name)), recipe=recipe, seed=0, threads=1
        )
        for name in ("straight", "disturbed")
    )
    assert run(straight, tmp_path / "straight-work") == ExitCode.OK

    assert stopped_at(10, number, disturbed, tmp_path / "first") == code
    assert read_termination(tmp_path / "first") is None

    assert run(disturbed, tmp_path / "second") == ExitCode.OK
    (result, lines), (expected, expected_lines) = outcome(disturbed), outcome(straight)
    assert result.resumed_from_step >= resumed_from
    assert expected.resumed_from_step == 0
    assert result.adapter_sha256 == expected.adapter_sha256
    assert lines == expected_lines
    assert (result.tokens, result.validation) == (expected.tokens, expected.validation)


def test_bad_input_ends_with_exit_code_2_and_its_reason(sweep: RecipeSweep, tmp_path: Path) -> None:
    training = sweep.training.model_copy(update={"max_length": 32})
    request = PrepareRequest(sweep=sweep.model_copy(update={"training": training}), store=str(tmp_path / "store"))
    assert run(request, tmp_path / "work") == ExitCode.BAD_INPUT
    word = read_termination(tmp_path / "work")
    assert word is not None
    assert word.reason == "ConfigError"
    assert "training.max_length" in word.message
