"""How much the reconciler writes, and who may write: rates of the status, and the lock of a sweep."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from worlds.controller import World

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench_orchestrator.domain.tasks import Observation
from surogate_bench_orchestrator.resource.model import parse_resource
from surogate_bench_orchestrator.sweep import locks
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.locks import Lease, SweepLock


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def refuse(*_: object, **__: object) -> Any:
    raise PermanentError("forbidden")


def test_nothing_is_written_while_nothing_happens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add()
    world.reconcile()
    monkeypatch.setattr(world.runtime, "advance", lambda: None)
    world.reconcile()
    before = world.writes
    for _ in range(20):
        world.reconcile()
    assert world.writes == before


def test_progress_is_written_every_ten_seconds_at_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    observe = world.runtime.observe

    def moving(names: Any) -> Mapping[str, Observation]:
        observed = observe(names)
        return {
            name: Observation(phase=each.phase, attempt=each.attempt, elapsed_s=world.time)
            for name, each in observed.items()
        }

    monkeypatch.setattr(world.runtime, "observe", moving)
    world.add()
    world.reconcile()
    world.reconcile()
    monkeypatch.setattr(world.runtime, "advance", lambda: None)
    world.reconcile()
    before = len(world.statuses)
    for _ in range(20):  # a hundred seconds
        world.reconcile()
    assert 9 <= len(world.statuses) - before <= 11


def test_a_status_is_written_once_in_each_reconcile(world: World) -> None:
    world.add()
    while not world.status().is_final:
        before = len(world.statuses)
        with suppress(TransientError):
            world.reconcile()
        assert len(world.statuses) <= before + 1


def test_a_deletion_that_the_cluster_refuses_is_reported_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    while len(world.runtime.submitted) < 3:
        world.reconcile()
    world.set(suspend=True)
    with monkeypatch.context() as patched:
        patched.setattr(world.runtime, "delete", refuse)
        with pytest.raises(TransientError, match="ClusterRefused: forbidden"):
            world.reconcile()
    assert (world.status().phase, world.reason()) == ("Suspended", ("ClusterRefused", "forbidden"))
    world.reconcile()
    assert world.reason()[0] == "InProgress"


def test_a_thousand_runs_cost_no_more_api_calls_per_finished_task_than_a_few(tmp_path: Path) -> None:
    def writes_per_task(seeds: int) -> float:
        world = World(tmp_path / str(seeds), slots=4)
        world.add(seeds=list(range(seeds)), recipes=["bf16"], evaluation={"parallel_evaluations": 2})
        for _ in range(30):
            world.reconcile()
        return world.writes / max(1, len(world.completions))

    assert writes_per_task(1000) <= writes_per_task(20) * 1.1


def lock_of(world: World) -> SweepLock:
    """Return the lock that another process in the same store would hold."""
    sweep = parse_resource(world.items["small"]).sweep
    return Lease(world.store, f".locks/small-{sweep.spec_hash}", SystemClock(), title="surogate-bench run")


def test_a_sweep_that_another_process_in_the_store_runs_waits_for_it_with_the_reason(world: World) -> None:
    world.add()
    lock = lock_of(world)
    assert lock.try_acquire()
    with pytest.raises(TransientError, match="StoreLocked"):
        world.reconcile()
    reason, message = world.reason()
    assert (world.status().phase, reason) == ("Pending", "StoreLocked")
    assert "surogate-bench run on" in message
    assert world.runtime.submitted == []
    lock.release()
    world.settle()
    assert world.status().phase == "Complete"


def test_a_sweep_is_locked_while_it_runs_and_free_once_it_is_suspended_deleted_or_ended(world: World) -> None:
    world.add()
    world.reconcile()
    lock = lock_of(world)
    assert "RecipeSweep lab/small on" in str(lock.holder())
    world.restart()  # a new leader acquires it at once
    world.reconcile()
    assert not lock.try_acquire()
    world.set(suspend=True)
    world.reconcile()
    assert lock.holder() is None
    world.set(suspend=False)
    world.reconcile()
    assert lock.holder() is not None
    world.items["small"]["metadata"]["uid"] = "uid-of-another"
    world.reconcile()
    assert lock.holder() is not None
    item = world.items.pop("small")
    world.reconcile()
    assert lock.holder() is None
    world.items["small"] = item
    world.settle()
    assert lock.holder() is None


def test_a_sweep_whose_lock_was_taken_while_the_store_was_unreachable_waits_until_it_is_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    with monkeypatch.context() as patch:
        patch.setattr(locks, "LEASE_DURATION_S", -1.0)
        patch.setattr(locks, "_RENEW_EVERY_S", 0.0)
        world.reconcile()
    lock = lock_of(world)
    assert lock.try_acquire()
    monkeypatch.setattr(locks, "_RENEW_EVERY_S", 0.0)
    submitted = len(world.runtime.submitted)
    with pytest.raises(TransientError, match="StoreLocked"):
        world.reconcile()
    assert len(world.runtime.submitted) == submitted
    lock.release()
    world.settle()
    assert world.status().phase == "Complete"
