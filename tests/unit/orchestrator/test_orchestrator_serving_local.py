"""Sweeps with several model servers, run by real processes that stand in for the services."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from files_below import files_below
from sweeps import small_sweep
from waiting import PATIENCE_S

from surogate_bench.contract import Service
from surogate_bench.results import EvalResult
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.domain.observed import RunState
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.runtimes.local import supervised
from surogate_bench_orchestrator.runtimes.local.machine import Allotment
from surogate_bench_orchestrator.runtimes.local.runtime import LocalRuntime
from surogate_bench_orchestrator.sweep import runner
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.rows import all_rows
from surogate_bench_orchestrator.sweep.runner import SweepRunner
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

FAKE_SERVICE = Path(__file__).parents[2] / "contract" / "fake_service.py"


class StoppedError(Exception):
    """Ends a runner between two passes."""


def fake_command(service: Service) -> list[str]:
    del service
    return [sys.executable, str(FAKE_SERVICE)]


@dataclass
class Machine:
    """A store, a folder for processes, and a sweep whose services do as the test says."""

    folder: Path
    release: Path
    """Lets tasks go on that are held."""
    shown: list[Snapshot] = field(default_factory=list)

    @property
    def done(self) -> dict[str, str]:
        """When each finished stage was made, by its place below ``runs/``."""
        paths = files_below(self.folder / "store", "runs/*/*/manifest.json")
        return {"/".join(path.parts[-3:-1]): json.loads(path.read_bytes())["created"] for path in paths}

    def result(self, laid_out: Plan, run: str, under: str | None) -> EvalResult:
        path = self.folder / "store" / laid_out.layout.eval(run, under) / "manifest.json"
        return EvalResult.model_validate(json.loads(path.read_bytes())["result"])

    def plan(self, behaviours: dict[str, str], **changes: Any) -> Plan:
        values = {"recipes": ["bf16", "fp8", "fp4"], "serving": {"under": ["own"]}, **changes}
        sweep = small_sweep(description=json.dumps(behaviours), max_attempts=2, **values)
        return plan(sweep, str(self.folder / "store"))

    def run(self, laid_out: Plan, *, slots: int, stopped_with: int | None = None) -> Snapshot:
        """Run a sweep to its end, or until so many stages are done; tasks are held until every slot has a server."""
        clock = SystemClock()
        allotment = Allotment(slots=slots, side_by_side=slots, threads=1)
        runtime = LocalRuntime(self.folder / "state", allotment, clock, command=fake_command)
        start = clock.now()

        def heartbeat() -> None:
            assert clock.now() - start < PATIENCE_S, "no end"
            if stopped_with is not None and len(self.done) >= stopped_with:
                raise StoppedError
            runtime.advance()

        store = open_store(laid_out.prepare.request.store)

        def show(snapshot: Snapshot) -> None:
            self.shown.append(snapshot)
            if servers_at_once(self, laid_out) == slots:
                self.release.touch()

        with runtime:
            return SweepRunner(laid_out, runtime, store, clock, heartbeat, show).run()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(runner, "POLL_S", 0.05)
    monkeypatch.setattr(supervised, "_BACKOFF_S", (0.1,))
    monkeypatch.setenv("SUROGATE_BENCH_TEST_RELEASE", str(tmp_path / "release"))
    return Machine(tmp_path, tmp_path / "release")


def servers_at_once(machine: Machine, laid_out: Plan) -> int:
    return max(sum(shown.observed.is_active(task) for task in laid_out.servers) for shown in machine.shown)


@pytest.mark.parametrize("slots", [1, 3])
def test_every_evaluation_is_made_on_its_own_server_however_many_slots_there_are(machine: Machine, slots: int) -> None:
    laid_out = machine.plan({f"{stage} base": "held" for stage in ("eval", "eval-fp8", "eval-fp4")})
    last = machine.run(laid_out, slots=slots)
    assert {status.state for status in last.states.values()} == {RunState.SUCCEEDED}
    evaluations = {f"{run.name}/eval" for run in laid_out.runs}
    further = {"base/eval-fp8", "base/eval-fp4", "fp8-s0/eval-fp8", "fp4-s0/eval-fp4"}
    assert {stage for stage in machine.done if "/eval" in stage} == evaluations | further
    assert machine.result(laid_out, "fp8-s0", "fp8").served_under == "fp8"
    assert machine.result(laid_out, "fp8-s0", None).served_under is None
    assert servers_at_once(machine, laid_out) == slots


def test_what_fails_on_one_server_leaves_the_results_of_the_others(machine: Machine) -> None:
    laid_out = machine.plan({"eval-fp8 fp8-s0": "bad-input", "serve-fp4 serve": "unsupported"})
    rows = {row.name: row for row in all_rows(machine.run(laid_out, slots=2))}
    assert rows["bf16-s0"].state == "Succeeded"
    assert (rows["fp8-s0"].state, rows["fp8-s0"].accuracy) == ("Failed", 0.5)
    assert str(rows["fp8-s0"].failure).startswith("ConfigError: served under fp8: data.path: is wrong")
    assert (rows["fp4-s0"].state, rows["fp4-s0"].accuracy) == ("Skipped", 0.5)
    assert str(rows["model server under fp4"].failure) == "UnsupportedRecipeError: no engine"
    assert {"base/eval", "base/eval-fp8", "fp8-s0/eval", "fp4-s0/eval"} <= machine.done.keys()
    before = machine.done
    healed = machine.run(laid_out, slots=2)
    assert healed.states["fp8-s0"].state is RunState.FAILED
    assert machine.done == before


@pytest.mark.parametrize("stages", [4, 6])
def test_stopped_between_two_evaluations_it_continues_and_repeats_nothing(machine: Machine, stages: int) -> None:
    laid_out = machine.plan({"eval-fp4 base": "busy-once", "serve-fp8 serve": "killed-once"})
    with pytest.raises(StoppedError):
        machine.run(laid_out, slots=1, stopped_with=stages)
    before = machine.done
    last = machine.run(laid_out, slots=1)
    assert {status.state for status in last.states.values()} == {RunState.SUCCEEDED}
    assert before.items() <= machine.done.items()
    assert servers_at_once(machine, laid_out) == 1
