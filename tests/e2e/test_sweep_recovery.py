"""A real sweep, cut down, that is killed in several ways and still ends as it should."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from surogate_bench.progress import read_progress
from surogate_bench.results import TrainResult
from surogate_bench_orchestrator.adapters.processes import TASK_DIR_VARIABLE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PATIENCE_S = 300.0
STEPS = 40
SPEC = {
    "name": "recovery",
    "model": {"builtin": "tiny-qwen3-en"},
    "data": {
        "builtin": "word-problems-ro", "train_size": 200, "validation_size": 8, "test_size": 20,
        "prompt": "Întrebare: {question}\nRăspuns:",
    },
    "training": {
        "max_steps": STEPS, "max_length": 512, "micro_batch_size": 2, "gradient_accumulation_steps": 1,
        "learning_rate": 2e-3, "warmup_steps": 5, "eval_steps": 20, "checkpoint_steps": 5,
    },
    "recipes": ["bf16", "fp8"],
    "serving": {"max_lora_rank": 16, "max_model_len": 512, "kv_cache_gib": 0.5},
    "evaluation": {"num_concurrent": 20, "max_gen_toks": 64, "max_empty_fraction": 1.0},
}  # fmt: skip


@dataclass
class Sweep:
    """A sweep in a folder of its own, run by processes."""

    folder: Path
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [
                sys.executable, "-m", "surogate_bench_orchestrator", "run", str(self.folder / "sweep.yaml"),
                "--store", str(self.folder / "results"), "--state-dir", str(self.folder / "state"),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def clean_up(self) -> None:
        for process in self.started:
            process.terminate()
            process.communicate(timeout=60)

    def processes(self) -> list[psutil.Process]:
        """Everything that the sweep's tasks started and that still runs."""
        found = []
        for process in psutil.process_iter():
            try:
                mark = process.environ().get(TASK_DIR_VARIABLE, "")
            except (psutil.Error, OSError):
                continue
            if mark.startswith(str(self.folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def vllm(self) -> list[psutil.Process]:
        """Processes of vLLM, which hide their environment behind a title."""
        return [process for process in psutil.process_iter(["name"]) if process.info["name"].startswith("VLLM")]

    def trainers(self, recipe: str) -> list[psutil.Process]:
        mark = f"-{recipe}-s0-train-"
        return [process for process in self.processes() if mark in process.environ()[TASK_DIR_VARIABLE]]

    def step(self, recipe: str) -> int:
        """Training step of a run as it says itself."""
        folders = list((self.folder / "state").glob(f"*/*-{recipe}-s0-train-*/work"))
        progress = read_progress(folders[0]) if folders else None
        return progress.step if progress else 0

    def manifests(self) -> dict[str, str]:
        """When each finished stage was made."""
        root = self.folder / "results"
        found = sorted(root.rglob("manifest.json"))
        return {path.parent.relative_to(root).as_posix(): json.loads(path.read_bytes())["created"] for path in found}

    def trained(self, recipe: str) -> TrainResult:
        path = next((self.folder / "results").rglob(f"{recipe}-s0/train/manifest.json"))
        return TrainResult.model_validate(json.loads(path.read_bytes())["result"])


@dataclass
class Story:
    """What was seen while the sweep was disturbed."""

    sweep: Sweep
    vllm_before: int
    step_when_killed: int
    left_by_kill: int
    first: "subprocess.CompletedProcess[str]"
    second: "subprocess.CompletedProcess[str]"
    manifests: dict[str, str]
    again: "subprocess.CompletedProcess[str]"


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def finish(process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
    out, err = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Kill the orchestrator while it trains; start it twice; kill a trainer; and start once more when all is done."""
    sweep = Sweep(tmp_path_factory.mktemp("recovery"))
    (sweep.folder / "sweep.yaml").write_text(yaml.safe_dump(SPEC, allow_unicode=True))
    try:
        yield disturb(sweep)
    finally:
        sweep.clean_up()


def disturb(sweep: Sweep) -> Story:
    vllm_before = len(sweep.vllm())
    killed = sweep.start()
    until(lambda: min(sweep.step("bf16"), sweep.step("fp8")) > 10, "both train")
    step = min(sweep.step("bf16"), sweep.step("fp8"))
    killed.kill()
    finish(killed)
    until(lambda: not sweep.processes(), "trainers end with their orchestrator")
    left = len(sweep.processes())
    first = sweep.start()
    until(lambda: sweep.trainers("bf16") and sweep.step("bf16") > step, "training goes on")
    os.kill(sweep.trainers("bf16")[0].pid, signal.SIGKILL)
    second = sweep.start()
    ended = finish(first), finish(second)
    manifests = sweep.manifests()
    return Story(sweep, vllm_before, step, left, *ended, manifests, finish(sweep.start()))


def test_the_sweep_succeeds_though_orchestrator_and_trainer_were_killed(story: Story) -> None:
    assert story.first.returncode == 0, story.first.stdout + story.first.stderr
    assert "killed by SIGKILL" in story.first.stdout
    assert {path.split("/", 3)[3] for path in story.manifests} == {
        "prepare", "runs/base/eval", "runs/bf16-s0/train", "runs/bf16-s0/eval", "runs/fp8-s0/train", "runs/fp8-s0/eval",
    }  # fmt: skip


def test_training_goes_on_from_its_checkpoint(story: Story) -> None:
    for recipe in ("bf16", "fp8"):
        result = story.sweep.trained(recipe)
        assert result.steps == STEPS
        assert result.resumed_from_step >= story.step_when_killed // 5 * 5 - 5


def test_a_killed_orchestrator_leaves_nothing_running(story: Story) -> None:
    assert story.left_by_kill == 0


def test_the_second_start_waits_says_for_whom_and_shows_the_same_table(story: Story) -> None:
    assert story.second.returncode == 0
    assert "worked on by process" in story.second.stderr
    assert "Training" not in story.second.stdout
    assert story.second.stdout.strip() in story.first.stdout


def test_a_finished_sweep_repeats_nothing_and_shows_the_same_table(story: Story) -> None:
    assert story.again.returncode == 0
    assert story.again.stdout == story.second.stdout
    assert story.sweep.manifests() == story.manifests


def test_nothing_runs_any_more(story: Story) -> None:
    assert story.sweep.processes() == []
    assert len(story.sweep.vllm()) <= story.vllm_before
