"""The controller's turns on the in-memory runtime: what it does, tells and keeps, also when it is killed anywhere."""

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from finished_stages import manifest_of
from memory_runtime import Ending, MemoryRuntime

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.layout import manifest_key
from surogate_bench.store import ObjectStore, open_store
from surogate_bench_orchestrator.adapters.kubernetes.settings import StoreSettings
from surogate_bench_orchestrator.controller.metrics.exposition import Board
from surogate_bench_orchestrator.controller.reports.maker import ReportState
from surogate_bench_orchestrator.controller.reports.process import ReportRequest
from surogate_bench_orchestrator.controller.status.document import condition, condition_is_true
from surogate_bench_orchestrator.controller.status.writer import StatusWriter
from surogate_bench_orchestrator.controller.sweep.reconciler import Reconciler, Surroundings
from surogate_bench_orchestrator.controller.sweep.store_gate import StoreGate
from surogate_bench_orchestrator.domain.tasks import Observation, Task
from surogate_bench_orchestrator.resource.model import parse_resource
from surogate_bench_orchestrator.sweep import locks
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.completed_stages import CompletedStages
from surogate_bench_orchestrator.sweep.locks import Lease, SweepLock

SPEC: dict[str, Any] = {
    "model": {"builtin": "tiny-qwen3-en"},
    "data": {"builtin": "word-problems-ro", "train_size": 8, "test_size": 8},
    "training": {"max_steps": 2},
    "recipes": ["bf16", "fp8"],
}


class Killed(BaseException):
    """The process is gone."""


class Runtime(MemoryRuntime):
    """The in-memory runtime, from which retired tasks vanish at once; every write goes through ``write``."""

    def __init__(self, world: "World", slots: int) -> None:
        super().__init__(slots=slots, ending=world.ending, publish=world.publish)
        self._world = world
        self.retired: list[str] = []

    def submit(self, task: Task) -> None:
        if why := self._world.refused.get(task.name.split("-", 1)[1].rsplit("-", 1)[0]):
            raise PermanentError(why)
        self._world.write(lambda: MemoryRuntime.submit(self, task))

    def delete(self, name: str) -> None:
        self._world.write(lambda: MemoryRuntime.delete(self, name))

    def retire(self, name: str) -> None:
        def vanish() -> None:
            self.retired.append(name)
            MemoryRuntime.delete(self, name)

        self._world.write(vanish)


@dataclass
class World:
    """A namespace with its API server, a store and time; the controller is replaced when it is killed."""

    folder: Path
    slots: int = 2
    bad: dict[str, Ending] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    store_trouble: str = ""
    time: float = 0.0
    writes: int = 0
    kill_at: int = 0
    kill_after_effect: bool = False
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: list[ReportRequest] = field(default_factory=list)
    report_states: list[tuple[ReportState, str]] = field(default_factory=list)
    completions: list[str] = field(default_factory=list)
    submitted_after_done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = open_store(str(self.folder))
        self.runtime = Runtime(self, self.slots)
        self.board = Board()
        self.restart()

    # What the controller sees of its surroundings.
    def get(self, name: str) -> dict[str, Any] | None:
        return copy.deepcopy(self.items.get(name))

    def objects(self) -> list[dict[str, Any]]:
        return [copy.deepcopy(item) for item in self.items.values()]

    def apply(self, path: str, body: dict[str, Any], *, manager: str, force: bool = True) -> dict[str, Any]:
        assert manager == "surogate-bench-controller"
        assert force
        name = body["metadata"]["name"]
        assert path == f"/apis/bench.surogate.ai/v1alpha1/namespaces/lab/recipesweeps/{name}/status"

        def effect() -> None:
            assert body["metadata"]["uid"] == self.items[name]["metadata"]["uid"]
            self.items[name]["status"] = copy.deepcopy(body["status"])
            self.statuses.append(body["status"])

        self.write(effect)
        return body

    def create(self, path: str, body: dict[str, Any]) -> bool:
        assert path == "/api/v1/namespaces/lab/events"
        name = body["metadata"]["name"]
        if name in self.events:
            return False
        self.write(lambda: self.events.update({name: body}))
        return True

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        name = path.rpartition("/")[2]
        self.write(lambda: self.events[name].update(body))
        return self.events[name]

    def advance(self, key: str, request: ReportRequest) -> tuple[ReportState, str]:
        del key
        state = self.report_states.pop(0) if self.report_states else (ReportState.DONE, "")
        if state[0] is ReportState.DONE:
            self.write(lambda: self.reports.append(request))
        return state

    def now(self) -> float:
        return self.time

    # What makes the world go on.
    def write(self, effect: Callable[[], None]) -> None:
        self.writes += 1
        killed = self.writes == self.kill_at
        if not killed or self.kill_after_effect:
            effect()
        if killed:
            raise Killed

    def ending(self, task: Task, attempt: int) -> Ending:
        del attempt
        return next((how for words, how in self.bad.items() if words in task.name), Ending.OK)

    def publish(self, task: Task) -> None:
        assert task.output is not None
        manifest = manifest_of(task.request)
        assert self.store.create(manifest_key(task.output), manifest.model_dump_json().encode()), "done twice"
        self.completions.append(task.name)

    def restart(self, *, gate: StoreGate | None = None) -> None:
        if gate is None:
            gate = StoreGate(StoreSettings(url=str(self.folder)), lambda: self.store_trouble)
            assert gate.check()
        self.gate = gate
        started = datetime(2026, 1, 1, tzinfo=UTC)
        writer = StatusWriter(self, clock=self.now, wall=lambda: started + timedelta(seconds=self.time))
        self.reconciler = Reconciler(
            Surroundings(
                resources=self,
                gate=self.gate,
                make_runtime=lambda _: self.runtime,
                reports=self,
                writer=writer,
                board=self.board,
                clock=self.now,
            )
        )

    def add(self, name: str = "small", **spec: Any) -> None:
        metadata = {"name": name, "namespace": "lab", "uid": f"uid-of-{name}", "generation": 1}
        self.items[name] = {"metadata": metadata, "spec": copy.deepcopy(SPEC) | spec}

    def set(self, name: str = "small", **spec: Any) -> None:
        self.items[name]["spec"] |= spec
        self.items[name]["metadata"]["generation"] += 1

    def status(self, name: str = "small") -> dict[str, Any]:
        found: dict[str, Any] = self.items[name].get("status", {})
        return found

    def turn(self, name: str = "small") -> float | None:
        """One turn, after which tasks go on; a trouble of the turn is for the caller."""
        done = len(self.completions)
        before = list(self.runtime.submitted)
        try:
            return self.reconciler.turn(name)
        finally:
            new = self.runtime.submitted[len(before) :]
            self.submitted_after_done += [task for task in new if task in self.completions[:done]]
            self.time += 5
            self.runtime.advance()

    def settle(self, name: str = "small", *, most: int = 300) -> None:
        """Turn until nothing is to come; a killed controller is started again."""
        for _ in range(most):
            try:
                if self.turn(name) is None:
                    return
            except Killed:
                self.restart()
            except TransientError:
                continue
        raise AssertionError(f"no end: {self.status(name)}")

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.events.values()]

    def states(self, name: str = "small") -> dict[str, str]:
        return {row["name"]: row["state"] for row in self.status(name)["runs"]}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_sweep_runs_to_its_end_with_status_events_metrics_and_one_report(world: World) -> None:
    world.add()
    world.settle()
    status = world.status()
    assert (status["phase"], status["progress"], status["best"]) == ("Complete", "3/3", "bf16 0.500")
    assert condition_is_true(status, "Complete")
    assert world.states() == {"base": "Succeeded", "bf16-s0": "Succeeded", "fp8-s0": "Succeeded"}
    assert sorted(world.reasons()) == ["Admitted", *["RunSucceeded"] * 3, "SweepComplete"]
    assert len(world.reports) == 1
    assert world.board.knows("small")
    assert len(world.store.list("sweeps/small/")) == 8  # spec.json and seven manifests


def test_finished_tasks_are_retired_and_a_finished_sweep_is_left_alone(world: World) -> None:
    world.add()
    world.settle()
    assert sorted(world.runtime.retired) == sorted(world.completions)
    before = world.writes
    assert world.turn() is None
    world.restart()
    assert world.turn() is None
    assert world.writes == before


def test_a_failed_run_fails_the_sweep_with_its_reason_and_the_others_succeed(world: World) -> None:
    world.bad["fp8-s0-train"] = Ending.BAD_INPUT
    world.add()
    world.settle()
    assert world.status()["phase"] == "Failed"
    assert world.states() == {"base": "Succeeded", "bf16-s0": "Succeeded", "fp8-s0": "Failed"}
    assert sorted(world.reasons()) == ["Admitted", "RunFailed", "RunSucceeded", "RunSucceeded", "SweepFailed"]
    assert world.reports[0].failed == {"fp8-s0": "ConfigError: bad input"}


def test_an_unsupported_recipe_is_skipped_and_reported_as_such(world: World) -> None:
    world.bad["fp8-s0-train"] = Ending.UNSUPPORTED
    world.add()
    world.settle()
    assert (world.status()["phase"], world.states()["fp8-s0"]) == ("Complete", "Skipped")
    assert world.reports[0].skipped == {"fp8-s0": "UnsupportedRecipeError: cannot"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"recipes": ["bf16", "bf16"]}, "each may appear once"),
        ({"recipes": ["bf17"]}, "spec.recipes"),
        ({"seeds": list(range(1001))}, "spec.seeds"),
        ({"evaluation": {"task": "no_such_task"}}, "spec.evaluation.task"),
        ({"scheduling": {"slots": 0}}, "spec.scheduling.slots"),
    ],
)
def test_an_invalid_sweep_is_rejected_at_once_with_the_field(world: World, spec: dict[str, Any], field: str) -> None:
    world.add(**spec)
    assert world.turn() is None
    admitted = condition(world.status(), "Admitted")
    assert (world.status()["phase"], admitted["status"], admitted["reason"]) == ("Rejected", "False", "Invalid")
    assert field in admitted["message"]
    assert world.reasons() == ["Invalid"]
    assert world.runtime.submitted == []


def test_a_name_that_is_too_long_is_rejected(world: World) -> None:
    name = "n" * 41
    world.add(name)
    assert world.turn(name) is None
    assert "metadata.name" in condition(world.status(name), "Admitted")["message"]


def test_a_rejected_sweep_that_is_corrected_is_admitted(world: World) -> None:
    world.add(scheduling={"slots": 0})
    world.turn()
    world.set(scheduling={"slots": 1})
    world.settle()
    assert world.reasons()[:2] == ["Invalid", "Admitted"]
    assert world.status()["phase"] == "Complete"


def test_while_the_store_cannot_be_used_every_sweep_says_why(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    gate = StoreGate(StoreSettings(url=str(tmp_path / "file" / "store")), lambda: "Pod store-1 is not ready: no room.")
    world.restart(gate=gate)
    world.add()
    assert world.turn() == 1.0  # not known yet
    assert world.status() == {}
    assert not gate.check()
    assert world.turn() is None
    admitted = condition(world.status(), "Admitted")
    assert (admitted["status"], admitted["reason"]) == ("False", "StoreNotUsable")
    assert world.runtime.submitted == []
    url = tmp_path / "file" / "store"
    assert admitted["message"] == f"Pod store-1 is not ready: no room. Until it is, {url} cannot be used."
    assert [event["message"] for event in world.events.values()] == [admitted["message"]]
    world.restart()
    world.settle()
    assert world.status()["phase"] == "Complete"
    assert world.reasons()[:2] == ["StoreNotUsable", "Admitted"]


def test_a_suspended_sweep_stops_its_tasks_and_goes_on_when_it_is_resumed(world: World) -> None:
    world.add()
    while len(world.runtime.submitted) < 3:
        world.turn()
    world.set(suspend=True)
    for _ in range(3):
        world.turn()
    assert world.status()["phase"] == "Suspended"
    assert not any(seen.phase.is_active for seen in world.runtime.observe(world.runtime.submitted).values())
    submitted = len(world.runtime.submitted)
    for _ in range(5):
        world.turn()
    assert len(world.runtime.submitted) == submitted
    world.set(suspend=False)
    world.settle()
    assert world.status()["phase"] == "Complete"
    assert [reason for reason in world.reasons() if reason in {"Suspended", "Resumed"}] == ["Suspended", "Resumed"]
    assert world.submitted_after_done == []


def test_a_sweep_that_is_suspended_from_the_start_starts_nothing(world: World) -> None:
    world.add(suspend=True)
    for _ in range(3):
        world.turn()
    assert (world.status()["phase"], world.runtime.submitted) == ("Suspended", [])


def test_a_deleted_sweep_is_forgotten_and_nothing_is_started_while_it_goes(world: World) -> None:
    world.add()
    world.turn()
    world.items["small"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    submitted = len(world.runtime.submitted)
    assert world.turn() is None
    assert len(world.runtime.submitted) == submitted
    del world.items["small"]
    assert world.turn() is None
    assert not world.board.knows("small")


def test_a_sweep_deleted_and_made_again_starts_with_an_empty_status(world: World) -> None:
    world.add()
    world.settle()
    world.add()
    world.items["small"]["metadata"]["uid"] = "another"
    world.settle()  # everything is in the store
    assert world.status()["phase"] == "Complete"
    assert len(world.completions) == 7


def test_a_store_that_goes_away_is_told_and_the_sweep_goes_on_afterwards(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = CompletedStages.read

    def away(self: CompletedStages, tasks: list[Task]) -> None:
        if 10 <= world.time < 60:
            raise TransientError("no route")
        read(self, tasks)

    monkeypatch.setattr(CompletedStages, "read", away)
    world.store_trouble = "Pod store-1 is not ready: it used too much memory."
    world.add()
    world.settle()
    assert world.status()["phase"] == "Complete"
    assert world.reasons().count("StoreAway") == 1
    [told] = [event["message"] for event in world.events.values() if event["reason"] == "StoreAway"]
    assert told == f"Pod store-1 is not ready: it used too much memory. Until it is, {world.folder} cannot be used."
    assert any(condition(status, "Complete")["reason"] == "StoreAway" for status in world.statuses)


def test_a_refused_submission_is_told_and_fails_after_ten_minutes_while_the_others_go_on(world: World) -> None:
    world.refused["fp8-s0-train"] = "exceeded quota: jobs=2"
    world.add()
    world.settle()
    assert world.time > 600
    assert world.states() == {"base": "Succeeded", "bf16-s0": "Succeeded", "fp8-s0": "Failed"}
    row = next(row for row in world.status()["runs"] if row["name"] == "fp8-s0")
    assert (row["reason"], row["message"]) == ("SubmissionRefused", "exceeded quota: jobs=2")
    assert world.reasons().count("SubmissionRefused") == 1


def test_a_refused_submission_that_is_accepted_later_leaves_no_trace(world: World) -> None:
    world.refused["fp8-s0-train"] = "exceeded quota: jobs=2"
    world.add()
    for _ in range(10):
        with suppress(TransientError):
            world.turn()
    world.refused.clear()
    world.settle()
    assert world.status()["phase"] == "Complete"


def test_a_sweep_ends_only_once_its_report_is_made(world: World) -> None:
    world.report_states = [(ReportState.WORKING, "")] * 3
    world.add()
    world.settle()
    assert world.status()["phase"] == "Complete"
    assert [status["phase"] for status in world.statuses].count("Complete") == 1
    assert len(world.reports) == 1


def test_a_report_that_cannot_be_made_does_not_hold_up_the_end(world: World) -> None:
    world.report_states = [(ReportState.GIVEN_UP, "no room")]
    world.add()
    world.settle()
    assert world.status()["phase"] == "Complete"
    assert "no room" in condition(world.status(), "Complete")["message"]


def test_results_of_finished_sweeps_are_in_the_metrics_after_a_restart(world: World) -> None:
    world.bad["fp8-s0-train"] = Ending.BAD_INPUT
    world.add()
    world.settle()
    world.board = Board()
    world.runtime = Runtime(world, world.slots)  # every Job is gone by now
    world.restart()
    assert world.turn() is None
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in world.board.collect()
        for sample in family.samples
    }
    assert samples["surogate_bench_accuracy", "small", "bf16", "0"] == 0.5
    assert samples["surogate_bench_accuracy", "small", "base", ""] == 0.5
    assert samples["surogate_bench_runs", "small", "Failed"] == 1
    assert samples["surogate_bench_runs", "small", "Succeeded"] == 2


def test_a_finished_sweep_acknowledges_a_new_generation_and_does_nothing_else(world: World) -> None:
    world.add()
    world.settle()
    world.set(suspend=True)
    submitted, before = len(world.runtime.submitted), world.status()
    assert world.turn() is None
    after = world.status()
    assert after["observedGeneration"] == 2
    assert {**after, "observedGeneration": 1, "conditions": []} == {**before, "conditions": []}
    assert len(world.runtime.submitted) == submitted


def test_nothing_is_written_while_nothing_happens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add()
    world.turn()
    monkeypatch.setattr(world.runtime, "advance", lambda: None)
    world.turn()
    before = world.writes
    for _ in range(20):
        world.turn()
    assert world.writes == before


def test_progress_is_written_every_ten_seconds_at_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    observe = world.runtime.observe

    def moving(names: Any) -> Mapping[str, Observation]:
        seen = observe(names)
        return {
            name: Observation(phase=each.phase, attempt=each.attempt, elapsed_s=world.time)
            for name, each in seen.items()
        }

    monkeypatch.setattr(world.runtime, "observe", moving)
    world.add()
    world.turn()
    world.turn()
    monkeypatch.setattr(world.runtime, "advance", lambda: None)
    world.turn()
    before = len(world.statuses)
    for _ in range(20):  # a hundred seconds
        world.turn()
    assert 9 <= len(world.statuses) - before <= 11


def outcome(world: World) -> tuple[object, ...]:
    reasons = sorted(reason for reason in world.reasons() if reason != "TaskRetried")
    return (
        world.status()["phase"],
        world.states(),
        reasons,
        sorted(name.rpartition("-")[0] for name in world.completions),
    )


@pytest.mark.parametrize("bad", [{}, {"fp8-s0-train": Ending.BAD_INPUT}, {"base-eval": Ending.CRASH}], ids=str)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_killed_at_any_write_it_converges_to_the_same_end_and_repeats_nothing(
    tmp_path: Path, bad: dict[str, Ending], *, after_effect: bool
) -> None:
    undisturbed = World(tmp_path / "undisturbed", bad=bad)
    undisturbed.add()
    undisturbed.settle()
    for number in range(1, undisturbed.writes + 1):
        world = World(tmp_path / str(number), bad=bad, kill_at=number, kill_after_effect=after_effect)
        world.add()
        world.settle()
        assert world.writes >= number
        assert outcome(world) == outcome(undisturbed), f"killed at write {number}"
        assert world.submitted_after_done == []
        assert len(world.completions) == len(set(world.completions))
        assert len(world.reports) >= 1


def test_killed_at_any_write_while_it_is_suspended_it_stops_and_resumes_all_the_same(tmp_path: Path) -> None:
    for number in range(1, 40):
        world = World(tmp_path / str(number), kill_at=number, kill_after_effect=number % 2 == 0)
        world.add()
        for suspend in (True, False):
            for _ in range(4):
                try:
                    world.turn()
                except Killed:
                    world.restart()
            world.set(suspend=suspend)
        world.settle()
        assert world.status()["phase"] == "Complete", f"killed at write {number}"
        assert world.submitted_after_done == []


def test_a_thousand_runs_cost_no_more_api_calls_per_finished_task_than_a_few(tmp_path: Path) -> None:
    def writes_per_task(seeds: int) -> float:
        world = World(tmp_path / str(seeds), slots=4)
        world.add(seeds=list(range(seeds)), recipes=["bf16"], evaluation={"parallel_evaluations": 2})
        for _ in range(30):
            world.turn()
        return world.writes / max(1, len(world.completions))

    assert writes_per_task(1000) <= writes_per_task(20) * 1.1


def refuse(*_: object, **__: object) -> Any:
    raise PermanentError("forbidden")


def test_a_status_that_is_refused_reaches_the_loop_and_does_not_hold_up_the_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    with monkeypatch.context() as patched:
        patched.setattr(world, "apply", refuse)
        for _ in range(10):
            with pytest.raises(PermanentError, match="forbidden"):
                world.turn()
        assert len(world.completions) > 1
    world.settle()
    assert world.status()["phase"] == "Complete"


def test_events_that_are_refused_do_not_hold_up_the_status(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "create", refuse)
    world.add()
    world.settle()
    assert world.status()["phase"] == "Complete"
    assert world.events == {}


def test_an_api_that_is_away_stops_the_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> Any:
        raise TransientError("no route")

    world.add()
    monkeypatch.setattr(world, "apply", away)
    with pytest.raises(TransientError, match="no route"):
        world.turn()


def test_a_cluster_that_is_away_while_tasks_are_submitted_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Task) -> None:
        raise TransientError("no route")

    world.add()
    with monkeypatch.context() as patched:
        patched.setattr(world.runtime, "submit", away)
        with pytest.raises(TransientError, match="ClusterAway"):
            world.turn()
    world.settle()
    assert world.status()["phase"] == "Complete"


def test_the_spec_is_in_the_store(world: World) -> None:
    world.add()
    world.turn()
    keys = [info.key for info in ObjectStore.list(world.store, "sweeps/small/")]
    assert [key for key in keys if key.endswith("/spec.json")] == keys


def lock_of(world: World) -> SweepLock:
    """The lock by which another process on the same store keeps others from the sweep."""
    sweep = parse_resource(world.items["small"]).sweep
    return Lease(world.store, f".locks/small-{sweep.spec_hash}", SystemClock(), title="surogate-bench run")


def test_a_sweep_that_another_process_on_the_store_works_on_waits_for_it_and_says_so(world: World) -> None:
    world.add()
    lock = lock_of(world)
    assert lock.try_acquire()
    with pytest.raises(TransientError, match="StoreLocked"):
        world.turn()
    waiting = condition(world.status(), "Complete")
    assert (world.status()["phase"], waiting["reason"]) == ("Pending", "StoreLocked")
    assert "surogate-bench run on" in waiting["message"]
    assert world.runtime.submitted == []
    lock.release()
    world.settle()
    assert world.status()["phase"] == "Complete"


def test_a_sweep_is_locked_while_it_runs_and_free_once_it_is_suspended_deleted_or_ended(world: World) -> None:
    world.add()
    world.turn()
    lock = lock_of(world)
    assert "RecipeSweep lab/small on" in str(lock.holder())
    world.restart()  # a new leader has it at once
    world.turn()
    assert not lock.try_acquire()
    world.set(suspend=True)
    world.turn()
    assert lock.holder() is None
    world.set(suspend=False)
    world.turn()
    assert lock.holder() is not None
    world.items["small"]["metadata"]["uid"] = "uid-of-one-that-took-its-place"
    world.turn()
    assert lock.holder() is not None
    item = world.items.pop("small")
    world.turn()
    assert lock.holder() is None
    world.items["small"] = item
    world.settle()
    assert lock.holder() is None


def test_a_sweep_whose_lock_was_taken_while_the_store_was_away_waits_until_it_is_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    with monkeypatch.context() as patch:
        patch.setattr(locks, "LEASE_LIFE_S", -1.0)
        patch.setattr(locks, "_RENEW_EVERY_S", 0.0)
        world.turn()
    lock = lock_of(world)
    assert lock.try_acquire()
    monkeypatch.setattr(locks, "_RENEW_EVERY_S", 0.0)
    submitted = len(world.runtime.submitted)
    with pytest.raises(TransientError, match="StoreLocked"):
        world.turn()
    assert len(world.runtime.submitted) == submitted
    lock.release()
    world.settle()
    assert world.status()["phase"] == "Complete"
