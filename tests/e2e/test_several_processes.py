"""Two processes train one run on the CPU, as two GPUs would: compared with one process, killed, stopped, continued."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
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

STEPS = 20


@dataclass
class Bench:
    """A store, and training runs of one recipe with it as child processes."""

    folder: Path
    recipe: str

    def request(self, gpus: int) -> TrainRequest:
        sweep = small_sweep(
            data={"train_size": 400},
            training={
                "max_steps": STEPS, "max_length": 512, "micro_batch_size": 1, "eval_steps": 10, "checkpoint_steps": 2,
                "gpus": gpus,
            },
            recipes=[self.recipe],
            serving={"max_model_len": 512},
        )  # fmt: skip
        return TrainRequest(sweep=sweep, store=str(self.folder / "store"), recipe=self.recipe, seed=0, threads=gpus)

    def start(self, request: TrainRequest, *, prepare: bool = True, patience_s: int = 60) -> "Attempt":
        if prepare:
            work = self.folder / f"prepare-{request.sweep.training.gpus}"
            work.mkdir(exist_ok=True)
            handle(PrepareRequest(sweep=request.sweep, store=request.store), work)
        work = self.folder / f"train-{request.sweep.training.gpus}"
        work.mkdir(exist_ok=True)
        (work / "request.json").write_text(request.model_dump_json(exclude_none=True))
        command = [sys.executable, "-P", "-m", "surogate_bench_trainer", str(work / "request.json"), "--work-dir"]
        with (work / "log.txt").open("ab") as log:
            environment = os.environ | {PEER_TIMEOUT_VARIABLE: str(patience_s)}
            child = subprocess.Popen([*command, str(work)], stdout=log, stderr=log, env=environment)
        return Attempt(child, work)

    def train(self, gpus: int) -> "Trained":
        request = self.request(gpus)
        attempt = self.start(request)
        assert attempt.finish() == ExitCode.OK, attempt.log
        return self.trained(request)

    def trained(self, request: TrainRequest) -> "Trained":
        manifest = read_manifest(open_store(request.store), request.layout.train(f"{self.recipe}-s0"))
        assert manifest is not None
        return Trained(manifest.require_result(TrainResult), self.stage(request))

    def stage(self, request: TrainRequest) -> Path:
        return Path(request.store) / request.layout.train(f"{self.recipe}-s0")

    def at_a_checkpoint(self, patience_s: int = 60) -> "tuple[TrainRequest, Attempt, list[psutil.Process]]":
        """Start two processes, wait until a checkpoint is stored, and return them too, in the order of their ranks."""
        request = self.request(2)
        attempt = self.start(request, patience_s=patience_s)
        ranks = attempt.ranks()
        self.until_checkpoint(request)
        return request, attempt, ranks

    def until_checkpoint(self, request: TrainRequest) -> None:
        checkpoints = self.stage(request) / "checkpoints"
        until(lambda: list(checkpoints.rglob("complete.json")), "a checkpoint")


@dataclass
class Attempt:
    """A running training."""

    child: "subprocess.Popen[bytes]"
    work: Path

    def ranks(self) -> list[psutil.Process]:
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
class Trained:
    result: TrainResult
    folder: Path

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


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield Bench(tmp_path, getattr(request, "param", "fp8"))
    left = [each for each in psutil.process_iter() if str(tmp_path) in " ".join(_command(each))]
    for process in left:
        process.kill()
    assert not left, "processes outlived their training"


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("bench", ["fp8", "qbnb"], indirect=True)  # with delayed scaling, and without state
def test_two_processes_train_as_one_does(bench: Bench) -> None:
    alone, together = bench.train(1), bench.train(2)
    assert_equal_to_rounding(together, alone)
    assert len(together.values("loss")) == STEPS
    assert (alone.result.processes, together.result.processes) == (1, 2)
    assert (alone.result.threads, together.result.threads) == (1, 1)
    scales = "input_scales.safetensors"
    if (alone.folder / scales).exists():
        expected = load_file(alone.folder / scales)
        found = load_file(together.folder / scales)
        assert all(float(found[name]) == pytest.approx(float(scale), rel=1e-2) for name, scale in expected.items())
    progress = read_progress(bench.folder / "train-2")
    assert progress is not None
    assert (progress.phase, progress.step) == ("uploading", STEPS)
    assert not (bench.folder / "train-2" / "ranks" / "1" / "metrics.jsonl").exists()


@pytest.mark.parametrize("bench", ["fp4"], indirect=True)
def test_stochastic_rounding_repeats_with_several_processes(bench: Bench) -> None:
    first = bench.train(2)
    digest = first.result.adapter_sha256
    shutil.rmtree(first.folder)
    assert bench.train(2).result.adapter_sha256 == digest


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_continues_with_another_number_of_processes(bench: Bench, before: int, after: int) -> None:
    interrupted, continued = bench.request(before), bench.request(after)
    attempt = bench.start(interrupted)
    bench.until_checkpoint(interrupted)
    attempt.child.send_signal(signal.SIGTERM)
    assert attempt.finish() == ExitCode.TRANSIENT, attempt.log
    checkpoints = bench.stage(interrupted) / "checkpoints"
    steps = [json.loads(seal.read_text())["step"] for seal in checkpoints.rglob("complete.json")]
    shutil.copytree(checkpoints, bench.stage(continued) / "checkpoints")
    assert bench.start(continued).finish() == ExitCode.OK
    resumed = bench.trained(continued)
    assert resumed.result.resumed_from_step == max(steps)
    assert bench.start(interrupted, prepare=False).finish() == ExitCode.OK
    assert_equal_to_rounding(resumed, bench.trained(interrupted))


def test_a_killed_process_ends_the_attempt_with_its_reason_and_the_next_one_continues(bench: Bench) -> None:
    request, attempt, ranks = bench.at_a_checkpoint()
    ranks[1].kill()
    assert attempt.finish() == ExitCode.FAILED, attempt.log
    assert attempt.termination.reason == "Killed"
    assert attempt.termination.message.startswith("process 1 of 2 was killed by SIGKILL")
    assert not any(process.is_running() for process in ranks)
    assert bench.start(request, prepare=False).finish() == ExitCode.OK
    assert bench.trained(request).result.resumed_from_step >= 2


def test_a_process_that_hangs_is_named_when_the_others_have_waited_long_enough(bench: Bench) -> None:
    _, attempt, ranks = bench.at_a_checkpoint(patience_s=20)
    ranks[1].suspend()
    assert attempt.finish() == ExitCode.TRANSIENT, attempt.log
    assert attempt.termination.reason == "PeerLostError"
    assert attempt.termination.message == "process 1 of 2 does not respond, while the others wait for it"


def test_a_killed_trainer_takes_its_processes_along(bench: Bench) -> None:
    request, attempt, ranks = bench.at_a_checkpoint()
    attempt.child.kill()
    attempt.finish()
    until(lambda: not any(process.is_running() for process in ranks), "the end of both processes")
    assert list((bench.stage(request) / "checkpoints").rglob("complete.json"))


def test_a_stop_signal_to_one_process_stops_all_with_a_checkpoint(bench: Bench) -> None:
    _, attempt, ranks = bench.at_a_checkpoint()
    ranks[1].terminate()
    assert attempt.finish() == ExitCode.TRANSIENT, attempt.log
    assert attempt.termination.message.endswith("received SIGTERM; another attempt will continue")
