"""The loop around reconcile: what it reads from the store, and what it does while that is unavailable."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from finished_stages import manifest_of
from stand_ins.runtime import Ending, MemoryRuntime
from sweeps import small_sweep

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.layout import manifest_key
from surogate_bench.stages.requests import EvaluateRequest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_orchestrator.domain.observed import RunState
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.tasks import Task
from surogate_bench_orchestrator.sweep.completed_stages import CompletedStages
from surogate_bench_orchestrator.sweep.runner import SweepRunner
from surogate_bench_orchestrator.sweep.snapshot import Snapshot


def small_plan(store: ObjectStore) -> Plan:
    return plan(small_sweep(recipes=["bf16", "fp8"]), store.url)


@dataclass
class World:
    """A runner on the in-memory runtime, whose time passes when the runner sleeps."""

    store: ObjectStore
    laid_out: Plan
    bad: dict[str, Ending] = field(default_factory=dict)
    time: float = 0.0
    snapshots: list[Snapshot] = field(default_factory=list)
    requests: list[EvaluateRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runtime = MemoryRuntime(slots=2, ending=self.ending, publish=self.publish)

    def ending(self, task: Task, attempt: int) -> Ending:
        del attempt
        return next((how for words, how in self.bad.items() if words in task.name), Ending.OK)

    def publish(self, task: Task) -> None:
        assert task.output is not None
        if isinstance(task.request, EvaluateRequest):
            self.requests.append(task.request)
        manifest = manifest_of(task.request)
        assert self.store.create(manifest_key(task.output), manifest.model_dump_json().encode())

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.runtime.advance()

    def run(self) -> Snapshot:
        runner = SweepRunner(
            self.laid_out, self.runtime, self.store, self, heartbeat=self.beat, show=self.snapshots.append
        )
        return runner.run()

    def beat(self) -> None:
        assert self.time < 10_000, "no end"


@pytest.fixture
def world(tmp_path: Path) -> World:
    store = open_store(str(tmp_path))
    return World(store, small_plan(store))


def test_a_sweep_runs_to_its_end(world: World) -> None:
    last = world.run()
    assert {status.state for status in last.states.values()} == {RunState.SUCCEEDED}
    assert last.is_finished
    assert world.snapshots[-1] is last
    assert not any(last.observed.is_active(task) for task in world.laid_out.tasks)


def test_evaluations_get_the_servers_address(world: World) -> None:
    world.run()
    assert len(world.requests) == 3
    assert {request.server_url for request in world.requests} == {f"http://{world.laid_out.server.name}:8100"}


def test_a_second_runner_finds_everything_done_and_submits_nothing(world: World) -> None:
    world.run()
    again = World(world.store, world.laid_out)
    assert again.run().is_finished
    assert again.runtime.submitted == []


def test_a_failed_run_ends_with_its_reason_and_the_others_succeed(world: World) -> None:
    world.bad["fp8-s0-train"] = Ending.BAD_INPUT
    states = world.run().states
    assert {name: status.state for name, status in states.items()} == {
        "base": RunState.SUCCEEDED, "bf16-s0": RunState.SUCCEEDED, "fp8-s0": RunState.FAILED,
    }  # fmt: skip
    assert states["fp8-s0"].failure is not None
    assert states["fp8-s0"].failure.reason == "ConfigError"


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    reads: list[str] = []
    get = ObjectStore.get

    def counting(self: ObjectStore, key: str) -> bytes | None:
        reads.append(key)
        return get(self, key)

    monkeypatch.setattr(ObjectStore, "get", counting)
    return reads


def test_the_store_is_asked_when_a_task_changes_and_not_every_round(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(monkeypatch)
    world.run()
    assert len(reads) <= 3 * len(world.laid_out.tasks)
    rounds = len(world.snapshots)
    assert len(reads) < rounds * len(world.laid_out.tasks)


def test_while_the_store_is_away_nothing_is_decided_and_afterwards_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = CompletedStages.read

    def unavailable(self: CompletedStages, tasks: list[Task]) -> None:
        if 2 < world.time < 60:
            raise TransientError("no route")
        read(self, tasks)

    monkeypatch.setattr(CompletedStages, "read", unavailable)
    last = world.run()
    assert {status.state for status in last.states.values()} == {RunState.SUCCEEDED}
    assert not any(
        "ResultMissing" in str(status.failure) for each in world.snapshots for status in each.states.values()
    )


def test_a_store_that_stays_unavailable_ends_the_sweep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read = CompletedStages.read

    def unavailable(self: CompletedStages, tasks: list[Task]) -> None:
        if world.time > 2:
            raise TransientError("no route")
        read(self, tasks)

    monkeypatch.setattr(CompletedStages, "read", unavailable)
    with pytest.raises(TransientError, match="unavailable for 600 s"):
        world.run()
    assert 600 < world.time < 700


def test_a_manifest_that_cannot_be_understood_is_not_taken_for_a_result(world: World) -> None:
    output = world.laid_out.prepare.output
    assert output is not None
    world.store.put(manifest_key(output), b"{}")
    with pytest.raises(PermanentError, match="is not a manifest"):
        world.run()
