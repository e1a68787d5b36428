"""Two processes train one run on the CPU, as two GPUs would: compared with one process, killed, stopped, continued."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import pytest
import torch
from gates import Gate
from psutil import Process
from safetensors.torch import load_file
from sweeps import small_sweep
from waiting import until

from surogate_bench.contract import PEER_TIMEOUT_VARIABLE
from surogate_bench.errors import ExitCode
from surogate_bench.processes.progress import Termination, read_progress, read_termination
from surogate_bench.results import TrainResult
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest, TrainRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.main import handle

pytestmark = pytest.mark.e2e

STEPS, CHECKPOINT, HELD_AT = 10, 2, 3
RECIPES = ("fp8", "fp4", "qbnb")
"""With delayed scaling, with stochastic rounding, and without state."""


@dataclass
class Bench:
    """A store, and training runs of one recipe with it as child processes."""

    folder: Path
    recipe: str

    def request(self, gpus: int) -> TrainRequest:
        sweep = small_sweep(
            data={"train_size": 200},
            training={
                "max_steps": STEPS, "max_length": 256, "micro_batch_size": 1, "gradient_accumulation_steps": 2,
                "eval_steps": 5, "checkpoint_steps": CHECKPOINT, "gpus": gpus,
            },
            recipes=RECIPES,
            serving={"max_model_len": 256},
            evaluation={"max_gen_toks": 32},
        )  # fmt: skip
        return TrainRequest(sweep=sweep, store=str(self.folder / "store"), recipe=self.recipe, seed=0, threads=gpus)

    def prepare(self, gpus: int) -> None:
        request = self.request(gpus)
        (self.folder / f"prepare-{gpus}").mkdir()
        handle(PrepareRequest(sweep=request.sweep, store=request.store), self.folder / f"prepare-{gpus}")

    def start(self, request: TrainRequest, gate: Gate | None = None, *, patience_s: int = 60) -> "Attempt":
        work = self.folder / f"train-{request.recipe}-{request.sweep.training.gpus}"
        work.mkdir(exist_ok=True)
        (work / "request.json").write_text(request.model_dump_json(exclude_none=True))
        command = [sys.executable, "-P", "-m", "surogate_bench_trainer", str(work / "request.json"), "--work-dir"]
        with (work / "log.txt").open("ab") as log:
            environment = (gate.environment() if gate else os.environ) | {PEER_TIMEOUT_VARIABLE: str(patience_s)}
            child = subprocess.Popen([*command, str(work)], stdout=log, stderr=log, env=environment)
        return Attempt(child, work)

    def train(self, request: TrainRequest) -> "Trained":
        attempt = self.start(request)
        assert attempt.finish() == ExitCode.OK, attempt.log
        manifest = read_manifest(open_store(request.store), request.layout.train(f"{self.recipe}-s0"))
        assert manifest is not None
        return Trained(manifest.require_result(TrainResult), self.stage(request), attempt.work)

    def stage(self, request: TrainRequest) -> Path:
        return Path(request.store) / request.layout.train(f"{self.recipe}-s0")

    def at_a_checkpoint(self, gpus: int = 2, *, patience_s: int = 60) -> "Held":
        """Start processes that wait at a gate once a checkpoint is stored."""
        request, gate = self.request(gpus), Gate(self.folder / "gate")
        gate.close_training(HELD_AT)
        attempt = self.start(request, gate, patience_s=patience_s)
        until(lambda: gate.waiting() or attempt.child.poll() is not None, f"step {HELD_AT}")
        assert list((self.stage(request) / "checkpoints").rglob("complete.json")), attempt.log
        return Held(request, attempt, attempt.ranks() if gpus > 1 else [], gate)


@dataclass
class Attempt:
    """A running training."""

    child: "subprocess.Popen[bytes]"
    work: Path

    def ranks(self) -> list[Process]:
        """Wait for both processes, in the order of their ranks."""
        children = psutil.Process(self.child.pid).children
        found = until(lambda: len(now := children()) == 2 and now, "two processes")
        assert found
        return sorted(found, key=lambda process: process.cmdline()[-1])

    def finish(self) -> int:
        return self.child.wait(1200)

    @property
    def log(self) -> str:
        return (self.work / "log.txt").read_text(encoding="utf-8")

    @property
    def termination(self) -> Termination:
        found = read_termination(self.work)
        assert found is not None
        return found


@dataclass(frozen=True)
class Held:
    """A training run that waits at a gate, after its first checkpoint."""

    request: TrainRequest
    attempt: Attempt
    ranks: list[Process]
    """In the order of their numbers."""
    gate: Gate


@dataclass(frozen=True)
class Trained:
    result: TrainResult
    folder: Path
    work: Path

    def values(self, field: str) -> list[float]:
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [line[field] for line in map(json.loads, lines) if field in line]

    def adapter(self) -> torch.Tensor:
        tensors = load_file(self.folder / "adapter" / "adapter_model.safetensors")
        return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def assert_equal_to_rounding(some: Trained, others: Trained) -> None:
    """Compare what two training runs of the same steps computed."""
    assert some.values("tokens") == others.values("tokens")
    assert some.values("loss") == pytest.approx(others.values("loss"), rel=2e-5)
    assert some.values("grad_norm") == pytest.approx(others.values("grad_norm"), rel=2e-3)
    assert some.values("eval_loss") == pytest.approx(others.values("eval_loss"), rel=2e-5)
    assert some.values("learning_rate") == others.values("learning_rate")
    first, second = some.adapter(), others.adapter()
    assert float((first - second).norm() / second.norm()) < 1e-3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which both sweeps are prepared."""
    bench = Bench(tmp_path_factory.mktemp("prepared"), "fp8")
    for gpus in (1, 2):
        bench.prepare(gpus)
    return bench.folder / "store"


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Trained]:
    """Trains a recipe with so many processes, once."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(prepared, folder / "store")

    @cache
    def train(recipe: str, gpus: int) -> Trained:
        bench = Bench(folder, recipe)
        return bench.train(bench.request(gpus))

    return train


@pytest.fixture
def bench(request: pytest.FixtureRequest, prepared: Path, tmp_path: Path) -> Iterator[Bench]:
    shutil.copytree(prepared, tmp_path / "store")
    yield Bench(tmp_path, getattr(request, "param", "fp8"))
    left = [each for each in psutil.process_iter() if str(tmp_path) in " ".join(_command(each))]
    for process in left:
        process.kill()
    assert not left, "processes outlived their training"


def _command(process: Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("recipe", ["fp8", pytest.param("qbnb", marks=pytest.mark.exhaustive)])
def test_two_processes_train_as_one_does(recipe: str, undisturbed: Callable[[str, int], Trained]) -> None:
    alone, together = undisturbed(recipe, 1), undisturbed(recipe, 2)
    assert_equal_to_rounding(together, alone)
    assert len(together.values("loss")) == STEPS
    assert (alone.result.processes, together.result.processes) == (1, 2)
    assert (alone.result.threads, together.result.threads) == (1, 1)
    scales = "input_scales.safetensors"
    if (alone.folder / scales).exists():
        expected = load_file(alone.folder / scales)
        found = load_file(together.folder / scales)
        assert all(float(found[name]) == pytest.approx(float(scale), rel=1e-2) for name, scale in expected.items())
    progress = read_progress(together.work)
    assert progress is not None
    assert (progress.phase, progress.step) == ("uploading", STEPS)
    assert not (together.work / "ranks" / "1" / "metrics.jsonl").exists()


@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.exhaustive)])
def test_a_run_stopped_by_a_signal_to_one_process_continues_with_another_number_of_processes(
    bench: Bench, before: int, after: int, undisturbed: Callable[[str, int], Trained]
) -> None:
    held = bench.at_a_checkpoint(before)
    (held.ranks[1] if held.ranks else held.attempt.child).send_signal(signal.SIGTERM)
    held.gate.open()
    assert held.attempt.finish() == ExitCode.TRANSIENT, held.attempt.log
    if held.ranks:
        assert held.attempt.termination.message.endswith("received SIGTERM; another attempt will continue")
    checkpoints = bench.stage(held.request) / "checkpoints"
    steps = [json.loads(seal.read_text())["step"] for seal in checkpoints.rglob("complete.json")]
    continued = bench.request(after)
    shutil.copytree(checkpoints, bench.stage(continued) / "checkpoints")
    resumed = bench.train(continued)
    assert resumed.result.resumed_from_step == max(steps)
    assert_equal_to_rounding(resumed, undisturbed("fp8", before))


@pytest.mark.parametrize("bench", ["fp4"], indirect=True)
def test_a_killed_process_ends_the_attempt_with_its_reason_and_the_next_one_continues_to_the_same_bytes(
    bench: Bench, undisturbed: Callable[[str, int], Trained]
) -> None:
    held = bench.at_a_checkpoint()
    held.ranks[1].kill()
    held.gate.open()
    assert held.attempt.finish() == ExitCode.FAILED, held.attempt.log
    assert held.attempt.termination.reason == "Killed"
    assert held.attempt.termination.message.startswith("process 1 of 2 was killed by SIGKILL")
    assert not any(process.is_running() for process in held.ranks)
    resumed = bench.train(held.request)
    assert resumed.result.resumed_from_step >= CHECKPOINT
    assert resumed.result.adapter_sha256 == undisturbed("fp4", 2).result.adapter_sha256, "stochastic rounding repeats"


def test_a_process_that_hangs_is_named_when_the_others_have_waited_long_enough(bench: Bench) -> None:
    held = bench.at_a_checkpoint(patience_s=20)
    held.ranks[1].suspend()
    held.gate.open()
    assert held.attempt.finish() == ExitCode.TRANSIENT, held.attempt.log
    assert held.attempt.termination.reason == "PeerLostError"
    assert held.attempt.termination.message == "process 1 of 2 does not respond, while the others wait for it"


def test_a_killed_trainer_takes_its_processes_along(bench: Bench) -> None:
    held = bench.at_a_checkpoint()
    held.attempt.child.kill()
    held.attempt.finish()
    held.gate.open()
    until(lambda: not any(process.is_running() for process in held.ranks), "the end of both processes")
    assert list((bench.stage(held.request) / "checkpoints").rglob("complete.json"))
