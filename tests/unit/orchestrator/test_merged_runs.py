"""Runs whose adapters are also scored merged into the base: servers of their own, and what people see of them."""

import io
from pathlib import Path
from typing import Any

import pytest
from finished_stages import manifest_of, publish
from rich.console import Console
from stand_ins.clock import FakeClock
from stand_ins.runtime import Ending, MemoryRuntime
from sweeps import small_sweep

from surogate_bench.stages.requests import EvaluateRequest, ServeRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.cli.targets.logs import stages_of
from surogate_bench_orchestrator.cli.terminal.live_table import render_progress
from surogate_bench_orchestrator.controller.metrics.exposition import Metrics
from surogate_bench_orchestrator.controller.metrics.figures import figures_of
from surogate_bench_orchestrator.domain.observed import Failure, Observed, RunState, run_states
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.reconcile import Delete, Submit, reconcile
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task, is_merged, stage_of
from surogate_bench_orchestrator.resource.status import StatusRow
from surogate_bench_orchestrator.sweep import reuse
from surogate_bench_orchestrator.sweep.rows import SweepProgress, all_rows
from surogate_bench_orchestrator.sweep.runner import SweepRunner
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

THEIRS = {"name": "theirs", "path": "/adapters/theirs"}
RUNNING = Observation(phase=Phase.RUNNING, attempt=1)
FAILED = Observation(phase=Phase.FAILED, attempt=1, reason="ConfigError", message="serving.merged: no room")
SCORED: dict[str, Any] = {"strict": {"accuracy": 0.625, "stderr": 0.02}, "seconds": 12.0}


def planned(under: str = "own", **changes: Any) -> Plan:
    sections: dict[str, Any] = {"recipes": ["bf16", "fp8"], "serving": {"under": [under], "merged": True}}
    return plan(small_sweep(**sections | changes), "file:///results")


def tasks_of(laid_out: Plan, run: str) -> dict[str, Task]:
    """Tasks of a run by stage, its own servers included."""
    found = next(each for each in laid_out.runs if each.name == run)
    return {stage_of(task): task for task in (*found.tasks, *found.servers_of_its_own)}


def observed(*done: Task, tasks: dict[Task, Observation] | None = None, slots: int = 1) -> Observed:
    given = {task.name: each for task, each in (tasks or {}).items()}
    return Observed(done=frozenset(task.name for task in done), tasks=given, slots=slots)


def all_trained(laid_out: Plan) -> tuple[Task, ...]:
    return (*laid_out.preliminaries, *laid_out.training_order, *laid_out.imports)


def test_every_merged_adapter_has_a_server_of_its_own_for_each_way_of_serving() -> None:
    laid_out = planned(adapters=[THEIRS], serving={"under": ["fp8"], "merged": True})
    requests = [task.request for task in laid_out.servers if isinstance(task.request, ServeRequest)]
    assert [(each.merged, each.under) for each in requests] == [
        (None, None), (None, "fp8"), ("bf16-s0", None), ("bf16-s0", "fp8"), ("fp8-s0", None), ("fp8-s0", "fp8"),
        ("theirs", None), ("theirs", "fp8"),
    ]  # fmt: skip
    stages = tasks_of(laid_out, "fp8-s0")
    assert set(stages) == {"train", "eval", "eval-fp8", "merged", "merged-fp8", "serving-merged", "serving-merged-fp8"}
    request = stages["merged-fp8"].request
    assert isinstance(request, EvaluateRequest)
    assert (request.run, request.under, request.merged) == ("fp8-s0", "fp8", True)
    assert stages["merged-fp8"].output == laid_out.layout.eval("fp8-s0", "fp8", merged=True)
    assert laid_out.server_of(stages["merged-fp8"]) == stages["serving-merged-fp8"]
    assert set(tasks_of(laid_out, "base")) == {"eval", "eval-fp8"}
    assert len({task.name for task in laid_out.tasks}) == len(laid_out.tasks)


def test_without_it_nothing_is_planned_otherwise() -> None:
    laid_out = planned(serving={"under": ["own"]})
    assert not [task for task in laid_out.tasks if is_merged(task)]


def test_a_server_that_merges_waits_for_the_adapter_and_ends_with_its_one_evaluation() -> None:
    laid_out = planned("bf16")
    stages = tasks_of(laid_out, "fp8-s0")
    submitted = reconcile(laid_out, observed(*laid_out.preliminaries, slots=3))
    assert not [action for action in submitted if is_merged(action.task)]
    published = [run.evaluate for run in laid_out.runs]
    trained = observed(*all_trained(laid_out), *published, slots=3)
    assert Submit(stages["serving-merged"]) in reconcile(laid_out, trained)
    up = observed(*all_trained(laid_out), *published, tasks={stages["serving-merged"]: RUNNING}, slots=3)
    assert Submit(stages["merged"]) in reconcile(laid_out, up)
    over = observed(
        *all_trained(laid_out), *published, stages["merged"], tasks={stages["serving-merged"]: RUNNING}, slots=3
    )
    assert Delete(stages["serving-merged"]) in reconcile(laid_out, over)


def test_a_server_that_merges_never_starts_while_the_last_trainers_run() -> None:
    laid_out = planned("bf16")
    training = dict.fromkeys(laid_out.training_order[-1:], RUNNING)
    done = (*laid_out.preliminaries, *laid_out.training_order[:-1])
    assert Submit(laid_out.server) in reconcile(laid_out, observed(*done, tasks=training, slots=2))
    scored = [each.task for run in laid_out.runs if run.train in done for each in run.evaluations]
    without_server = training | {laid_out.server: FAILED}
    assert reconcile(laid_out, observed(*done, *scored, tasks=without_server, slots=2)) == ()


def test_an_adapter_that_cannot_be_merged_fails_its_run_by_name_and_keeps_its_other_results() -> None:
    laid_out = planned("bf16")
    stages = tasks_of(laid_out, "fp8-s0")
    found = observed(*all_trained(laid_out), stages["eval"], tasks={stages["serving-merged"]: FAILED})
    status = run_states(laid_out, found)["fp8-s0"]
    assert status.state is RunState.FAILED
    message = "served merged: the model server failed: serving.merged: no room"
    assert status.failure == Failure("ConfigError", message, "served merged")
    assert run_states(laid_out, found)["bf16-s0"].state is RunState.TRAINED


def snapshot(laid_out: Plan) -> Snapshot:
    """Make the state of a sweep with everything scored; merged adapters better, and under recipes worse."""
    done: dict[Task, dict[str, Any]] = {task: {} for task in all_trained(laid_out)}
    for run in laid_out.runs:
        for each in run.evaluations:
            accuracy = 0.5 + 0.25 * each.merged - 0.125 * (each.under is not None)
            done[each.task] = SCORED | {"strict": {"accuracy": accuracy, "stderr": 0.02}}
    manifests = {task.name: manifest_of(task.request, **result) for task, result in done.items()}
    return Snapshot(plan=laid_out, observed=observed(*done), manifests=manifests)


def test_status_table_and_metrics_have_the_merged_accuracies_beside_the_others() -> None:
    shown = snapshot(planned())
    rows = {row.name: row for row in all_rows(shown)}
    assert {"model server of fp8-s0 merged", "model server of fp8-s0 merged under fp8"} <= rows.keys()
    row = rows["fp8-s0"]
    assert (row.accuracy, row.served_accuracies) == (0.5, {"fp8": 0.375})
    assert row.merged_accuracies == {"bf16": 0.75, "fp8": 0.625}
    assert row.as_json()["merged_accuracies"] == row.merged_accuracies
    assert "merged_accuracies" not in rows["base"].as_json()
    assert "merged_accuracies" in StatusRow.model_fields
    output = io.StringIO()
    view = SweepProgress(title="t", rows=tuple(rows.values()), finished=True)
    Console(file=output, width=250).print(render_progress(view))
    assert "served under fp8 0.375; merged: bf16 0.750, fp8 0.625" in output.getvalue()
    metrics = Metrics()
    metrics.results.update("s", figures_of(shown))
    labels = {"sweep": "small", "recipe": "fp8", "seed": "0", "served_under": "fp8"}
    for merged, expected in (("true", 0.625), ("false", 0.375)):
        found = metrics.registry.get_sample_value("surogate_bench_served_accuracy", {**labels, "merged": merged})
        assert found == expected


def test_logs_of_a_run_include_those_of_the_servers_of_its_merged_adapter() -> None:
    sweep = planned().sweep
    assert stages_of(sweep, "fp8-s0", None) == (
        "train", "eval", "eval-fp8", "merged", "merged-fp8", "serving-merged", "serving-merged-fp8",
    )  # fmt: skip
    assert stages_of(sweep, "fp8-s0", "serving-merged") == ("serving-merged",)
    assert stages_of(sweep, "base", None) == ("eval", "eval-fp8")


def run_sweep(folder: Path, **changes: Any) -> list[str]:
    """Run a sweep in a store to its end; returns the stages that were computed."""
    store = open_store(str(folder / "store"))
    laid_out = plan(planned(**changes).sweep, store.url)
    store.put(laid_out.layout.spec, laid_out.sweep.model_dump_json().encode())
    runtime = MemoryRuntime(
        slots=2, ending=lambda _task, _attempt: Ending.OK, publish=lambda task: publish(store, task, folder / "scratch")
    )
    clock = FakeClock(each=runtime.advance)

    def heartbeat() -> None:
        assert clock.time < 10_000, "no end"

    last = SweepRunner(laid_out, runtime, store, clock, heartbeat=heartbeat, show=lambda _: None).run()
    assert {status.state for status in last.states.values()} == {RunState.SUCCEEDED}
    return sorted(stage_of(task) for task in laid_out.tasks if task.output and task.name in runtime.submitted)


def test_results_are_reused_merged_for_merged_and_unmerged_for_unmerged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmerged = {"serving": {"under": ["own"]}}
    run_sweep(tmp_path, **unmerged)
    assert run_sweep(tmp_path) == ["check-task", "merged", "merged", "merged-fp8", "prepare"]
    assert run_sweep(tmp_path, description="again") == ["prepare"]
    monkeypatch.setattr(reuse, "SERVING_VERSION", 2)
    assert {"merged", "merged-fp8", "eval-fp8"} == set(run_sweep(tmp_path, description="later")) - {
        "check-task", "prepare",
    }  # fmt: skip
