"""The trainer as a process, on the shipped model: killed in different ways, it continues bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from surogate_bench.errors import ExitCode
from surogate_bench.manifest import read_manifest
from surogate_bench.progress import read_termination
from surogate_bench.requests import PrepareRequest, StageRequest, TrainRequest
from surogate_bench.results import TrainResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.store import open_store

pytestmark = pytest.mark.e2e
DEADLINE_S = 300.0


@pytest.fixture(scope="module")
def sweep() -> RecipeSweep:
    """40 steps with delayed scaling over 5 steps, stochastic rounding, and dropout."""
    short = {"name": "fp8-short", "title": "FP8", "weight_storage": "bf16", "compute": "fp8-hybrid"}
    return parse_sweep(
        {
            "name": "killed",
            "model": {"builtin": "tiny-qwen3-en"},
            "data": {"builtin": "word-problems-ro", "train_size": 200, "validation_size": 20, "test_size": 20},
            "training": {
                "max_steps": 40,
                "max_length": 256,
                "micro_batch_size": 1,
                "gradient_accumulation_steps": 2,
                "learning_rate": 2e-3,
                "lora": {"r": 8, "alpha": 16, "dropout": 0.1},
                "eval_steps": 9,
                "checkpoint_steps": 7,
            },
            "recipes": ["fp4", short | {"fp8_amax_history_length": 5}],
            "serving": {"max_model_len": 512},
            "evaluation": {"max_gen_toks": 64},
        }
    )


def start(request: StageRequest, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "request.json"
    path.write_text(request.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "surogate_bench_trainer", str(path), "--work-dir", str(folder)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def run(request: StageRequest, folder: Path) -> int:
    return start(request, folder).wait(DEADLINE_S)


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def prepared(sweep: RecipeSweep, tmp_path: Path, recipe: str) -> TrainRequest:
    store = str(tmp_path / "store")
    assert run(PrepareRequest(sweep=sweep, store=store), tmp_path / "prepare") == ExitCode.OK
    return TrainRequest(sweep=sweep, store=store, recipe=recipe, seed=0, threads=1)


def outcome(request: TrainRequest) -> tuple[TrainResult, list[dict[str, Any]]]:
    prefix = request.layout.train(f"{request.recipe}-s0")
    store = open_store(request.store)
    manifest, metrics = read_manifest(store, prefix), store.get(f"{prefix}/metrics.jsonl")
    assert manifest is not None
    assert metrics is not None
    lines = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in metrics.splitlines()]
    assert store.list(f"{prefix}/checkpoints") == []
    return TrainResult.model_validate(manifest.result), lines


@pytest.mark.parametrize("recipe", ["fp4", "fp8-short"])
def test_a_run_killed_twice_ends_with_the_bytes_of_one_that_was_not(
    sweep: RecipeSweep, tmp_path: Path, recipe: str
) -> None:
    straight = prepared(sweep, tmp_path / "straight", recipe)
    assert run(straight, tmp_path / "straight-work") == ExitCode.OK

    killed = prepared(sweep, tmp_path / "killed", recipe)
    process = start(killed, tmp_path / "first")
    wait_for_lines(tmp_path / "first" / "metrics.jsonl", 18, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait(DEADLINE_S) == -signal.SIGKILL

    process = start(killed, tmp_path / "second")
    wait_for_lines(tmp_path / "second" / "metrics.jsonl", 26, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == ExitCode.TRANSIENT
    assert read_termination(tmp_path / "second") is None

    assert run(killed, tmp_path / "third") == ExitCode.OK
    (result, lines), (expected, expected_lines) = outcome(killed), outcome(straight)
    assert result.resumed_from_step >= 23
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
