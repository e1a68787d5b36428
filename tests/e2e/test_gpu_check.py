"""gpu-check and doctor as their users start them, on a machine without a GPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from waiting import PATIENCE_S

from surogate_bench.errors import PermanentError
from surogate_bench.machine.checks import Outcome, read_report
from surogate_bench.recipes import RECIPES
from surogate_bench_trainer.gpu_check.cpu_reference import CpuReference
from surogate_bench_trainer.gpu_check.run import GROUPS
from surogate_bench_trainer.gpu_check.stage import stage_name

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(torch.cuda.is_available(), reason="is the run without a GPU")]

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def run(*command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_dry_run_passes_nothing_that_needs_a_gpu(tmp_path: Path) -> None:
    done = run("surogate_bench_trainer.gpu_check", "--output", "report", "--commit", "abc1234", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "dry run on a CPU: it proves nothing about a GPU" in done.stdout
    report = read_report(tmp_path / "report")
    assert report is not None
    assert report.complete
    assert report.commit == "abc1234"
    assert {check.group for check in report.checks} == set(GROUPS)
    assert {check.outcome for check in report.checks} == {Outcome.PASSED, Outcome.NOT_RUN}
    not_run = [check for check in report.checks if check.outcome is Outcome.NOT_RUN]
    assert all(check.reason.startswith("no GPU") for check in not_run)
    names = {check.name for check in not_run}
    recipes = {recipe.name for recipe in RECIPES}
    assert {f"{name}: captured against plain" for name in recipes} <= names
    assert recipes | {"plain loop", "fp8 on torch", "fp8: losses against the CPU's"} <= names
    timed = [check for check in report.checks if "tokens/s" in check.figures]
    assert {check.name for check in timed} == recipes | {"plain loop"}
    assert not (tmp_path / "report" / "work" / "store" / "tmp").exists()


def test_the_cpu_computes_the_losses_of_a_train_stage_beside_a_run(tmp_path: Path) -> None:
    arguments = ["--groups", "train-stage", "--threads", "1"]
    with CpuReference(tmp_path, arguments, deadline=time.monotonic() + PATIENCE_S) as reference:
        losses = reference.losses(stage_name("fp8"))
        with pytest.raises(PermanentError, match="has ended"):
            reference.losses("another check")
    assert len(losses) == 4
    with (
        CpuReference(tmp_path, arguments, deadline=time.monotonic()) as late,
        pytest.raises(PermanentError, match="time limit"),
    ):
        late.losses(stage_name("fp8"))


def test_doctor_reports_that_a_sweep_can_run_here_and_writes_nothing(tmp_path: Path) -> None:
    done = run("surogate_bench_orchestrator", "doctor", "--output", "json", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["can_run"]
    assert {recipe["recipe"]: recipe["codes"] for recipe in answer["recipes"]} == {
        recipe.name: "equal" for recipe in RECIPES
    }
    assert answer["versions"]["torch"] == torch.__version__
    assert not list(tmp_path.iterdir())
