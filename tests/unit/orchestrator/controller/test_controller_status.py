"""The status of a RecipeSweep: its fields, and what is kept of the previous one."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from finished_stages import manifest_of
from sweeps import small_sweep

from surogate_bench.processes.progress import Progress
from surogate_bench_orchestrator.controller.status.builder import INVALID, build_status, differs_in_progress_only
from surogate_bench_orchestrator.controller.status.state import SweepState
from surogate_bench_orchestrator.domain.observed import Failure, Observed
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task
from surogate_bench_orchestrator.resource.status import Condition, ConditionType, StatusRow, SweepStatus
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

RECIPES = ["bf16", "fp8"]
PLAN = plan(small_sweep(recipes=RECIPES), "s3://bucket/results")
BASE, BF16, FP8 = PLAN.runs
TRAINED = {"final_train_loss": 0.51234567, "tokens_per_second": 50.04, "train_seconds": 30.0}
NEW = SweepStatus()
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"


def scored(accuracy: float) -> dict[str, Any]:
    return {"strict": {"accuracy": accuracy, "stderr": 0.02}, "seconds": 12.0, "samples": 8}


def snapshot(
    observed: Mapping[Task, Observation], results: Mapping[Task, dict[str, Any]], laid_out: Plan = PLAN
) -> Snapshot:
    manifests = {task.name: manifest_of(task.request, **result) for task, result in results.items()}
    tasks = {task.name: observation for task, observation in observed.items()}
    observed = Observed(done=frozenset(manifests), tasks=tasks, slots=2)
    return Snapshot(plan=laid_out, observed=observed, manifests=manifests)


def training(step: int = 30) -> Observation:
    progress = Progress(phase="training", step=step, total=100, loss=1.25, tokens_per_second=5123.46)
    return Observation(phase=Phase.RUNNING, attempt=1, elapsed_s=12.04, progress=progress)


def running(step: int = 30) -> SweepState:
    assert BF16.train is not None
    return state(snapshot({BF16.train: training(step)}, {PLAN.prepare: {}}))


def state(found: Snapshot | None, **changes: Any) -> SweepState:
    return replace(SweepState(generation=1, spec_hash="abc", results_uri="s3://b/r", snapshot=found), **changes)


def finished(*, failed: bool) -> SweepState:
    assert BF16.train is not None
    assert FP8.train is not None
    results = {PLAN.prepare: {}, BASE.evaluate: scored(0.9), BF16.train: TRAINED, BF16.evaluate: scored(0.8)}
    if not failed:
        results |= {FP8.train: TRAINED, FP8.evaluate: scored(0.625)}
    bad = {FP8.train: Observation(phase=Phase.FAILED, attempt=3, reason="Killed", message="exit code 137: OOM")}
    return state(snapshot(bad if failed else {}, results), finished=True)


def row(status: SweepStatus, name: str) -> StatusRow:
    return next(row for row in status.runs if row.name == name)


def condition(status: SweepStatus, kind: str) -> Condition:
    return next(each for each in status.conditions if each.type == kind)


def test_a_new_sweep_is_pending_and_every_condition_is_set() -> None:
    status = build_status(state(None), NEW, EARLY)
    assert status.phase == "Pending"
    assert {each.type: each.status for each in status.conditions} == {
        "Admitted": "True", "Suspended": "False", "Complete": "False", "Failed": "False",
    }  # fmt: skip
    assert status.observed_generation == 1
    assert (status.spec_hash, status.results_uri) == ("abc", "s3://b/r")
    assert status.start_time is None


def test_a_running_sweep_shows_its_progress_and_leaves_out_what_is_unknown() -> None:
    status = build_status(running(), NEW, EARLY)
    assert (status.phase, status.progress, status.failed) == ("Running", "0/3", 0)
    assert status.start_time == EARLY
    rows = {each["name"]: each for each in status.to_object()["runs"]}
    assert rows["bf16-s0"] == {
        "name": "bf16-s0", "state": "Training", "detail": "training", "attempt": 1, "step": 30, "total": 100,
        "loss": 1.25, "tokensPerSecond": 5123.5, "elapsedSeconds": 12.0, "recipe": "bf16", "seed": 0,
        "uri": "s3://b/r/runs/bf16-s0",
    }  # fmt: skip
    assert rows["base"] == {"name": "base", "state": "Pending", "recipe": "base", "uri": "s3://b/r/runs/base"}
    assert [each.name for each in status.services] == ["prepare", "task check", "model server"]


def test_a_complete_sweep_names_the_recipe_with_the_highest_accuracy_and_its_seeds_but_not_the_base() -> None:
    status = build_status(finished(failed=False), NEW, LATE)
    assert (status.phase, status.progress, status.best) == ("Complete", "3/3", "bf16 0.800 (1 seed)")
    assert status.is_true(ConditionType.COMPLETE)
    assert not status.is_true(ConditionType.FAILED)
    assert status.completion_time == LATE
    assert row(status, "bf16-s0").accuracy == 0.8
    assert row(status, "bf16-s0").loss == 0.5123


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ({"bf16-s0": 0.9, "bf16-s1": 0.1, "fp8-s0": 0.6, "fp8-s1": 0.6}, "fp8 0.600 (2 seeds)"),
        ({"bf16-s0": 0.5, "bf16-s1": 0.9, "fp8-s0": 0.6}, "fp8 0.600 (1 seed)"),  # not the mean over both seeds
        ({"bf16-s0": 0.5, "bf16-s1": 0.9}, "bf16 0.700 (2 seeds)"),
        ({"bf16-s0": 0.5, "fp8-s1": 0.9}, ""),  # no seed in common
        ({"bf16-s0": 0.6, "fp8-s0": 0.6}, "bf16, fp8 0.600 (1 seed)"),
        ({"base": 0.9}, ""),
    ],
)
def test_the_highest_accuracy_is_over_the_seeds_that_all_scored_recipes_have(
    scores: dict[str, float], shown: str
) -> None:
    laid_out = plan(small_sweep(recipes=RECIPES, seeds=[0, 1]), "s3://bucket")
    results = {run.evaluate: scored(scores[run.name]) for run in laid_out.runs if run.name in scores}
    previous = NEW.model_copy(update={"best": "bf16 0.999 (1 seed)"})
    assert build_status(state(snapshot({}, results, laid_out)), previous, EARLY).best == shown


def test_of_many_equal_accuracies_not_one_is_singled_out() -> None:
    laid_out = plan(small_sweep(recipes=["bf16", "fp8", "fp4"]), "s3://bucket")
    found = snapshot({}, {run.evaluate: scored(0.25) for run in laid_out.runs}, laid_out)
    assert build_status(state(found), NEW, EARLY).best == "bf16 and 2 others 0.250 (1 seed)"


def test_accuracies_of_further_tasks_are_shown_by_task_as_soon_as_they_are_known() -> None:
    laid_out = plan(small_sweep(recipes=RECIPES, evaluation={"tasks": ["gsm8k", "arc_easy", "a"]}), "s3://bucket")
    base = laid_out.runs[0]
    further = next(each.task for each in base.evaluations if each.further == "arc_easy")
    found = snapshot({}, {base.evaluate: scored(0.5), further: scored(1 / 3)}, laid_out)
    rows = {each["name"]: each for each in build_status(state(found), NEW, EARLY).to_object()["runs"]}
    assert rows["base"]["taskAccuracies"] == {"arc_easy": 0.333333}
    assert "taskAccuracies" not in rows["fp8-s0"]


def test_a_sweep_with_a_failed_run_has_failed_with_the_reason() -> None:
    status = build_status(finished(failed=True), NEW, LATE)
    assert (status.phase, status.progress, status.failed) == ("Failed", "3/3", 1)
    assert status.is_true(ConditionType.FAILED)
    assert not status.is_true(ConditionType.COMPLETE)
    assert (row(status, "fp8-s0").reason, row(status, "fp8-s0").message) == ("Killed", "exit code 137: OOM")
    assert condition(status, "Complete").reason == "RunsFailed"
    assert "1 failed. fp8-s0: Killed: exit code 137: OOM" in condition(status, "Failed").message


def test_a_skipped_run_does_not_make_a_sweep_fail() -> None:
    assert FP8.train is not None
    whole = finished(failed=True)
    assert whole.snapshot is not None
    lacking = {FP8.train.name: Observation(phase=Phase.FAILED, attempt=1, reason="NoCapableNode", message="no node")}
    found = replace(whole.snapshot, observed=replace(whole.snapshot.observed, tasks=lacking))
    status = build_status(replace(whole, snapshot=found), NEW, LATE)
    assert (status.phase, status.failed, row(status, "fp8-s0").state) == ("Complete", 0, "Skipped")


def test_an_invalid_sweep_is_rejected_with_the_field_and_the_remedy() -> None:
    rejection = Failure(INVALID, "spec.recipes: bf16 appears more than once. Remove one")
    status = build_status(SweepState(generation=2, rejection=rejection), NEW, EARLY)
    assert status.phase == "Rejected"
    admitted = condition(status, "Admitted")
    assert (admitted.status, admitted.reason, admitted.message) == ("False", INVALID, rejection.message)
    assert admitted.observed_generation == 2


def test_a_sweep_whose_store_cannot_be_used_waits_and_keeps_its_rows() -> None:
    before = build_status(running(), NEW, EARLY)
    rejection = Failure("StoreNotUsable", "access was denied")
    new = build_status(SweepState(generation=1, rejection=rejection), NEW, EARLY)
    assert (new.phase, condition(new, "Admitted").reason) == ("Pending", "StoreNotUsable")
    later = build_status(SweepState(generation=1, rejection=rejection), before, LATE)
    assert (later.runs, later.start_time, later.spec_hash) == (before.runs, EARLY, "abc")


def test_while_the_store_is_unreachable_rows_stay_and_the_reason_is_set() -> None:
    before = build_status(running(), NEW, EARLY)
    status = build_status(state(None, failure=Failure("StoreAway", "no route")), before, LATE)
    assert (status.runs, status.phase) == (before.runs, "Running")
    assert (condition(status, "Complete").reason, condition(status, "Complete").message) == (
        "StoreAway", "no route",
    )  # fmt: skip


def test_a_sweep_is_suspended_until_it_ends() -> None:
    status = build_status(replace(running(), suspended=True), NEW, EARLY)
    assert status.phase == "Suspended"
    assert status.is_true(ConditionType.SUSPENDED)
    ended = build_status(replace(finished(failed=False), suspended=True), status, LATE)
    assert ended.phase == "Complete"
    assert not ended.is_true(ConditionType.SUSPENDED)


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = build_status(running(), NEW, EARLY)
    second = build_status(finished(failed=False), first, LATE)
    assert condition(second, "Admitted").last_transition_time == EARLY
    assert condition(second, "Complete").last_transition_time == LATE
    assert second.start_time == EARLY


def test_the_same_state_gives_the_same_status_at_any_time() -> None:
    first = build_status(finished(failed=False), NEW, EARLY)
    assert build_status(finished(failed=False), first, LATE) == first
    assert SweepStatus.of({"status": json.loads(json.dumps(first.to_object()))}) == first


def test_progress_of_a_running_task_is_distinguished_from_a_change_of_state() -> None:
    first, second = build_status(running(30), NEW, EARLY), build_status(running(31), NEW, EARLY)
    assert first != second
    assert differs_in_progress_only(first, second)
    assert not differs_in_progress_only(first, build_status(finished(failed=False), first, EARLY))
    assert not differs_in_progress_only(NEW, first)


def test_a_number_of_zero_is_written_and_what_is_unknown_is_not() -> None:
    assert SweepStatus(spec_hash="x", failed=0).to_object() == {"specHash": "x", "failed": 0}
    assert StatusRow(name="base", state="Succeeded", accuracy=0.0, seed=0).model_dump(exclude_defaults=True) == {
        "name": "base", "state": "Succeeded", "accuracy": 0.0, "seed": 0,
    }  # fmt: skip


def test_only_complete_and_failed_are_final() -> None:
    assert build_status(finished(failed=True), NEW, EARLY).is_final
    assert build_status(finished(failed=False), NEW, EARLY).is_final
    assert not build_status(running(), NEW, EARLY).is_final
    assert not NEW.is_final


def test_a_report_that_could_not_be_made_is_in_the_message() -> None:
    status = build_status(replace(finished(failed=False), report_failure="no room"), NEW, EARLY)
    assert "The report could not be made: no room" in condition(status, "Complete").message


@pytest.mark.parametrize("seeds", [500, 1000])
def test_the_status_of_a_thousand_failed_runs_stays_below_a_mebibyte_with_the_record_of_its_owner(seeds: int) -> None:
    laid_out = plan(small_sweep(recipes=RECIPES, name="n" * 40, seeds=list(range(seeds))), "s3://bucket/" + "p" * 60)
    bad = Observation(phase=Phase.FAILED, attempt=3, reason="OutOfMemory", message="m" * 4000)
    found = snapshot(dict.fromkeys(laid_out.training_order, bad), {laid_out.prepare: {}}, laid_out)
    uri = f"s3://bucket/{'p' * 60}/{laid_out.layout.root}"
    status = build_status(state(found, finished=True, results_uri=uri), NEW, EARLY)
    written = status.to_object()
    owned: list[object] = [
        {f'k:{{"name":"{row["name"]}"}}': {f"f:{field}": {} for field in row}} for row in written["runs"]
    ]
    assert len(json.dumps(written, separators=(",", ":"))) < 2**20
    assert len(json.dumps([written, owned], separators=(",", ":"))) < 1.5 * 2**20
    assert all(row.message for row in status.runs if row.reason)
