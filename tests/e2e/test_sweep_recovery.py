"""A real sweep, cut down, that is killed in several ways and still ends as it should."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml
from files_below import files_below
from gates import Gate
from sweeps import small_document
from waiting import PATIENCE_S, until

from surogate_bench.contract import TASK_DIR_VARIABLE
from surogate_bench.results import TrainResult

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

STEPS, KILLED_AT, KILLED_AGAIN_AT, CHECKPOINT = 16, 6, 10, 9
SPEC = small_document(
    name="recovery",
    data={"train_size": 200, "validation_size": 8, "test_size": 20, "prompt": "Întrebare: {question}\nRăspuns:"},
    training={
        "max_steps": STEPS, "max_length": 512, "micro_batch_size": 2, "gradient_accumulation_steps": 1,
        "learning_rate": 2e-3, "warmup_steps": 5, "eval_steps": 8, "checkpoint_steps": 3,
    },
    recipes=["bf16", "fp8"],
    serving={"max_lora_rank": 16, "max_model_len": 512, "kv_cache_gib": 0.5, "start_timeout_s": PATIENCE_S},
    evaluation={"num_concurrent": 20, "max_gen_toks": 32, "max_empty_fraction": 1.0},
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """``surogate-bench run`` as a process."""

    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path

    @property
    def output(self) -> str:
        return self.out.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def finish(self) -> "Run":
        self.process.wait(PATIENCE_S)
        return self


@dataclass
class Sweep:
    """A sweep in a folder of its own, run by processes that come to a gate."""

    folder: Path
    gate: Gate
    started: list[Run] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def start(self) -> Run:
        out, err = (self.folder / f"{len(self.started)}.{name}" for name in ("out", "err"))
        command = [
            sys.executable, "-m", "surogate_bench_orchestrator", "run", str(self.folder / "sweep.yaml"),
            "--store", str(self.folder / "results"), "--state-dir", str(self.state),
        ]  # fmt: skip
        with out.open("wb") as output, err.open("wb") as errors:
            process = subprocess.Popen(command, stdout=output, stderr=errors, env=self.gate.environment())
        self.started.append(Run(process, out, err))
        return self.started[-1]

    def clean_up(self) -> None:
        for run in self.started:
            run.process.terminate()
            run.finish()

    def processes(self) -> list[psutil.Process]:
        """What the sweep's tasks started and that still runs: by its output, as vLLM hides its environment."""
        return [process for process in psutil.process_iter() if _output_of(process).startswith(str(self.state))]

    def trainers_wait(self) -> bool:
        running = self.started[-1]
        assert running.process.poll() is None, running.output + running.errors
        return len(self.gate.waiting()) == len(SPEC["recipes"])

    def trainer(self, recipe: str) -> psutil.Process:
        mark = f"-{recipe}-s0-train-"
        (found,) = [each for each in self.gate.waiting() if mark in each.environ()[TASK_DIR_VARIABLE]]
        return found

    def manifests(self) -> dict[str, str]:
        """When each finished stage was made."""
        root = self.folder / "results"
        found = files_below(root, "manifest.json")
        return {path.parent.relative_to(root).as_posix(): json.loads(path.read_bytes())["created"] for path in found}

    def trained(self, recipe: str) -> TrainResult:
        path = next((self.folder / "results").rglob(f"{recipe}-s0/train/manifest.json"))
        return TrainResult.model_validate(json.loads(path.read_bytes())["result"])


def _output_of(process: psutil.Process) -> str:
    try:
        return str(Path(f"/proc/{process.pid}/fd/1").readlink())
    except OSError:  # it has ended, or is another user's
        return ""


@dataclass
class Story:
    """Observations while the sweep was disturbed."""

    sweep: Sweep
    running_before_the_kill: int
    left_by_kill: list[psutil.Process]
    first: Run
    second: Run
    manifests: dict[str, str]
    again: Run


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Kill the orchestrator while it trains; start it twice; kill a trainer; and start once more when all is done."""
    folder = tmp_path_factory.mktemp("recovery")
    sweep = Sweep(folder, Gate(folder / "gate"))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SPEC, allow_unicode=True))
    try:
        yield disturb(sweep)
    finally:
        sweep.clean_up()


def disturb(sweep: Sweep) -> Story:
    sweep.gate.close_training(KILLED_AT)
    killed = sweep.start()
    until(sweep.trainers_wait, "both train")
    running = len(sweep.processes())
    killed.process.kill()
    killed.finish()
    sweep.gate.open()  # a trainer that was asked to end does so between two steps
    until(lambda: not sweep.processes(), "trainers end with their orchestrator")
    left = sweep.processes()
    sweep.gate.close_training(KILLED_AGAIN_AT)
    first = sweep.start()
    until(sweep.trainers_wait, "training goes on")
    sweep.trainer("bf16").send_signal(signal.SIGKILL)
    second = sweep.start()
    until(lambda: "in use by process" in second.errors, "the second start waits")
    sweep.gate.open()
    first.finish(), second.finish()
    return Story(sweep, running, left, first, second, sweep.manifests(), sweep.start().finish())


def test_the_sweep_succeeds_though_orchestrator_and_trainer_were_killed(story: Story) -> None:
    assert story.first.process.returncode == 0, story.first.output + story.first.errors
    assert "killed by SIGKILL" in story.first.output
    assert {path.split("/", 3)[3] for path in story.manifests} == {
        "prepare", "checks/task", "runs/base/eval",
        "runs/bf16-s0/train", "runs/bf16-s0/eval", "runs/fp8-s0/train", "runs/fp8-s0/eval",
    }  # fmt: skip


@pytest.mark.parametrize(("recipe", "step"), [("bf16", CHECKPOINT), ("fp8", KILLED_AT)])
def test_training_goes_on_from_its_checkpoint(story: Story, recipe: str, step: int) -> None:
    result = story.sweep.trained(recipe)
    assert result.steps == STEPS
    assert result.resumed_from_step >= step


def test_a_killed_orchestrator_leaves_nothing_running(story: Story) -> None:
    assert story.running_before_the_kill >= len(SPEC["recipes"])
    assert story.left_by_kill == []


def test_the_second_start_waits_names_the_holder_and_shows_the_same_table(story: Story) -> None:
    assert story.second.process.returncode == 0
    assert f"in use by process {story.first.process.pid} " in story.second.errors
    assert "Training" not in story.second.output
    assert story.second.output.strip() in story.first.output


def test_a_finished_sweep_repeats_nothing_and_shows_the_same_table(story: Story) -> None:
    assert story.again.process.returncode == 0
    assert story.again.output == story.second.output
    assert story.sweep.manifests() == story.manifests


def test_nothing_runs_any_more(story: Story) -> None:
    assert story.sweep.processes() == []
