"""The reconciler with a store, a cluster or an API that fails, and killed at any write."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from stand_ins.runtime import Ending
from worlds.controller import Killed, World

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench_orchestrator.domain.tasks import Task
from surogate_bench_orchestrator.resource.status import ConditionType
from surogate_bench_orchestrator.sweep.completed_stages import CompletedStages


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def refuse(*_: object, **__: object) -> Any:
    raise PermanentError("forbidden")


def test_a_store_that_becomes_unreachable_is_reported_and_the_sweep_continues_afterwards(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = CompletedStages.read

    def unreachable(self: CompletedStages, tasks: list[Task]) -> None:
        if 10 <= world.time < 60:
            raise TransientError("no route")
        read(self, tasks)

    monkeypatch.setattr(CompletedStages, "read", unreachable)
    world.store_is_not_ready = "Pod store-1 is not ready: it used too much memory."
    world.add()
    world.settle()
    assert world.status().phase == "Complete"
    assert world.reasons().count("StoreAway") == 1
    [message] = [event["message"] for event in world.events.values() if event["reason"] == "StoreAway"]
    assert message == f"Pod store-1 is not ready: it used too much memory. Until it is, {world.folder} cannot be used."
    conditions = [status.condition(ConditionType.COMPLETE) for status in world.statuses]
    assert "StoreAway" in {each.reason for each in conditions if each}


def test_a_refused_submission_is_reported_and_fails_after_ten_minutes_while_the_others_continue(world: World) -> None:
    world.refused["fp8-s0-train"] = "exceeded quota: jobs=2"
    world.add()
    world.settle()
    assert world.time > 600
    assert world.states() == {"base": "Succeeded", "bf16-s0": "Succeeded", "fp8-s0": "Failed"}
    row = world.row("fp8-s0")
    assert (row.reason, row.message) == ("SubmissionRefused", "exceeded quota: jobs=2")
    assert world.reasons().count("SubmissionRefused") == 1


def test_a_refused_submission_that_is_accepted_later_leaves_no_trace(world: World) -> None:
    world.refused["fp8-s0-train"] = "exceeded quota: jobs=2"
    world.add()
    for _ in range(10):
        with suppress(TransientError):
            world.reconcile()
    world.refused.clear()
    world.settle()
    assert world.status().phase == "Complete"


def outcome(world: World) -> tuple[object, ...]:
    reasons = sorted(reason for reason in world.reasons() if reason != "TaskRetried")
    return (
        world.status().phase,
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
                    world.reconcile()
                except Killed:
                    world.restart()
            world.set(suspend=suspend)
        world.settle()
        assert world.status().phase == "Complete", f"killed at write {number}"
        assert world.submitted_after_done == []


def test_a_refused_status_is_an_error_of_the_reconcile_and_does_not_stop_the_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    with monkeypatch.context() as patched:
        patched.setattr(world, "apply", refuse)
        for _ in range(10):
            with pytest.raises(PermanentError, match="forbidden"):
                world.reconcile()
        assert len(world.completions) > 1
    world.settle()
    assert world.status().phase == "Complete"


def test_events_that_are_refused_do_not_stop_the_status(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "create", refuse)
    world.add()
    world.settle()
    assert world.status().phase == "Complete"
    assert world.events == {}


def test_an_unreachable_api_ends_the_reconcile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> Any:
        raise TransientError("no route")

    world.add()
    monkeypatch.setattr(world, "apply", unreachable)
    with pytest.raises(TransientError, match="no route"):
        world.reconcile()


def test_a_cluster_that_is_unreachable_while_tasks_are_submitted_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: Task) -> None:
        raise TransientError("no route")

    world.add()
    with monkeypatch.context() as patched:
        patched.setattr(world.runtime, "submit", unreachable)
        with pytest.raises(TransientError, match="ClusterAway"):
            world.reconcile()
    world.settle()
    assert world.status().phase == "Complete"
