"""The reconciler on the in-memory runtime: what a sweep goes through from admission to its end."""

from pathlib import Path
from typing import Any

import pytest
from stand_ins.runtime import Ending
from worlds.controller import Runtime, World

from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.controller.metrics.exposition import ResultsCollector
from surogate_bench_orchestrator.controller.reports.maker import ReportState, ReportStatus
from surogate_bench_orchestrator.controller.sweep.store_connection import StoreConnection
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.resource.status import ConditionType, SweepStatus
from surogate_bench_orchestrator.runtimes.kubernetes.settings import StoreSettings


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_sweep_runs_to_its_end_with_status_events_metrics_and_one_report(world: World) -> None:
    world.add()
    world.settle()
    status = world.status()
    assert (status.phase, status.progress, status.best) == ("Complete", "3/3", "bf16, fp8 0.500 (1 seed)")
    assert status.is_true(ConditionType.COMPLETE)
    assert world.states() == {"base": "Succeeded", "bf16-s0": "Succeeded", "fp8-s0": "Succeeded"}
    assert sorted(world.reasons()) == ["Admitted", *["RunSucceeded"] * 3, "SweepComplete"]
    assert len(world.reports) == 1
    assert world.results.has("small")
    assert len(world.store.list("sweeps/small/")) == 8  # spec.json and seven manifests


def test_finished_tasks_are_retired_and_a_finished_sweep_is_left_alone(world: World) -> None:
    world.add()
    world.settle()
    assert sorted(world.runtime.retired) == sorted(world.completions)
    before = world.writes
    assert world.reconcile() is None
    world.restart()
    assert world.reconcile() is None
    assert world.writes == before


def test_a_failed_run_fails_the_sweep_with_its_reason_and_the_others_succeed(world: World) -> None:
    world.bad["fp8-s0-train"] = Ending.BAD_INPUT
    world.add()
    world.settle()
    assert world.status().phase == "Failed"
    assert world.states() == {"base": "Succeeded", "bf16-s0": "Succeeded", "fp8-s0": "Failed"}
    assert sorted(world.reasons()) == ["Admitted", "RunFailed", "RunSucceeded", "RunSucceeded", "SweepFailed"]
    assert world.reports[0].failed == {"fp8-s0": Failure("ConfigError", "bad input")}


def test_an_unsupported_recipe_is_skipped_and_reported_as_such(world: World) -> None:
    world.bad["fp8-s0-train"] = Ending.UNSUPPORTED
    world.add()
    world.settle()
    assert (world.status().phase, world.states()["fp8-s0"]) == ("Complete", "Skipped")
    assert world.reports[0].skipped == {"fp8-s0": Failure("UnsupportedRecipeError", "cannot")}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"recipes": ["bf16", "bf16"]}, "bf16 appears more than once"),
        ({"recipes": ["bf17"]}, "spec.recipes"),
        ({"seeds": list(range(1001))}, "spec.seeds"),
        ({"evaluation": {"task": "no_such_task"}}, "spec.evaluation.task"),
        ({"evaluation": {"tasks": ["ro_gsm8k", "no_such_task"]}}, "spec.evaluation.tasks"),
        (
            {"evaluation": {"tasks": ["ro_gsm8k", {"name": "mine", "tasks_dir": "/mounted"}, "no_such_task"]}},
            "spec.evaluation.tasks",
        ),
        ({"scheduling": {"slots": 0}}, "spec.scheduling.slots"),
    ],
)
def test_an_invalid_sweep_is_rejected_at_once_with_the_field(world: World, spec: dict[str, Any], field: str) -> None:
    world.add(**spec)
    assert world.reconcile() is None
    reason, message = world.reason(ConditionType.ADMITTED)
    assert (world.status().phase, reason) == ("Rejected", "Invalid")
    assert not world.status().is_true(ConditionType.ADMITTED)
    assert field in message
    assert world.reasons() == ["Invalid"]
    assert world.runtime.submitted == []


def test_a_name_that_is_too_long_is_rejected(world: World) -> None:
    name = "n" * 41
    world.add(name)
    assert world.reconcile(name) is None
    admitted = world.status(name).condition(ConditionType.ADMITTED)
    assert admitted is not None
    assert "metadata.name" in admitted.message


def test_a_rejected_sweep_that_is_corrected_is_admitted(world: World) -> None:
    world.add(scheduling={"slots": 0})
    world.reconcile()
    world.set(scheduling={"slots": 1})
    world.settle()
    assert world.reasons()[:2] == ["Invalid", "Admitted"]
    assert world.status().phase == "Complete"


def test_while_the_store_cannot_be_used_every_sweep_has_the_reason(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    url = tmp_path / "file" / "store"
    connection = StoreConnection(StoreSettings(url=str(url)), lambda: "Pod store-1 is not ready: no room.")
    world.restart(connection=connection)
    world.add()
    assert world.reconcile() == 1.0  # not checked yet
    assert world.status() == SweepStatus()
    connection.check()
    assert connection.store is None
    assert world.reconcile() is None
    assert not world.status().is_true(ConditionType.ADMITTED)
    assert world.runtime.submitted == []
    message = f"Pod store-1 is not ready: no room. Until it is, {url} cannot be used."
    assert world.reason(ConditionType.ADMITTED) == ("StoreNotUsable", message)
    assert [event["message"] for event in world.events.values()] == [message]
    world.restart()
    world.settle()
    assert world.status().phase == "Complete"
    assert world.reasons()[:2] == ["StoreNotUsable", "Admitted"]


def test_a_suspended_sweep_stops_its_tasks_and_continues_when_it_is_resumed(world: World) -> None:
    world.add()
    while len(world.runtime.submitted) < 3:
        world.reconcile()
    world.set(suspend=True)
    for _ in range(3):
        world.reconcile()
    assert world.status().phase == "Suspended"
    assert not any(observed.phase.is_active for observed in world.runtime.observe(world.runtime.submitted).values())
    submitted = len(world.runtime.submitted)
    for _ in range(5):
        world.reconcile()
    assert len(world.runtime.submitted) == submitted
    world.set(suspend=False)
    world.settle()
    assert world.status().phase == "Complete"
    assert [reason for reason in world.reasons() if reason in {"Suspended", "Resumed"}] == ["Suspended", "Resumed"]
    assert world.submitted_after_done == []


def test_a_sweep_that_is_suspended_from_the_start_starts_nothing(world: World) -> None:
    world.add(suspend=True)
    for _ in range(3):
        world.reconcile()
    assert (world.status().phase, world.runtime.submitted) == ("Suspended", [])


def test_a_deleted_sweep_is_forgotten_and_starts_nothing_while_it_is_deleted(world: World) -> None:
    world.add()
    world.reconcile()
    world.items["small"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    submitted = len(world.runtime.submitted)
    assert world.reconcile() is None
    assert len(world.runtime.submitted) == submitted
    del world.items["small"]
    assert world.reconcile() is None
    assert not world.results.has("small")


def test_a_sweep_deleted_and_created_again_starts_with_an_empty_status(world: World) -> None:
    world.add()
    world.settle()
    world.add()
    world.items["small"]["metadata"]["uid"] = "another"
    world.settle()  # everything is in the store
    assert world.status().phase == "Complete"
    assert len(world.completions) == 7


def test_a_sweep_ends_only_once_its_report_is_made(world: World) -> None:
    world.report_states = [ReportStatus(ReportState.WORKING)] * 3
    world.add()
    world.settle()
    assert world.status().phase == "Complete"
    assert [status.phase for status in world.statuses].count("Complete") == 1
    assert len(world.reports) == 1


def test_a_report_that_cannot_be_made_does_not_delay_the_end(world: World) -> None:
    world.report_states = [ReportStatus(ReportState.GIVEN_UP, "no room")]
    world.add()
    world.settle()
    assert world.status().phase == "Complete"
    assert "no room" in world.reason()[1]


def test_results_of_finished_sweeps_are_in_the_metrics_after_a_restart(world: World) -> None:
    world.bad["fp8-s0-train"] = Ending.BAD_INPUT
    world.add()
    world.settle()
    world.results = ResultsCollector()
    world.runtime = Runtime(world, world.slots)  # every Job is gone by now
    world.restart()
    assert world.reconcile() is None
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in world.results.collect()
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
    assert world.reconcile() is None
    after = world.status()
    assert after.observed_generation == 2
    generation = {"observed_generation": 1, "conditions": ()}
    assert after.model_copy(update=generation) == before.model_copy(update=generation)
    assert len(world.runtime.submitted) == submitted


def test_the_spec_is_in_the_store(world: World) -> None:
    world.add()
    world.reconcile()
    keys = [info.key for info in ObjectStore.list(world.store, "sweeps/small/")]
    assert [key for key in keys if key.endswith("/spec.json")] == keys
