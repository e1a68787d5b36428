"""What people see of a sweep that is served in several ways."""

import io
from collections.abc import Mapping
from typing import Any

import pytest
from finished_stages import manifest_of
from rich.console import Console
from sweeps import small_sweep

from surogate_bench.errors import ConfigError
from surogate_bench.processes.progress import Progress
from surogate_bench_orchestrator.cli.targets.logs import stages_of
from surogate_bench_orchestrator.cli.terminal.live_table import render_progress
from surogate_bench_orchestrator.controller.metrics.exposition import Metrics
from surogate_bench_orchestrator.controller.metrics.figures import figures_of
from surogate_bench_orchestrator.domain.observed import Observed
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task
from surogate_bench_orchestrator.resource.status import StatusRow, SweepStatus
from surogate_bench_orchestrator.resource.status_schema import status_schema
from surogate_bench_orchestrator.sweep.rows import ProgressRow, SweepProgress, all_rows, service_rows
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

SWEEP = small_sweep(recipes=["bf16", "fp8"], serving={"under": ["own"]})
PLAN = plan(SWEEP, "file:///results")
BASE, BF16, FP8 = PLAN.runs
PUBLISHED, UNDER_FP8 = PLAN.servers
AS_PUBLISHED, ON_FP8 = (each.task for each in FP8.evaluations)
TRAINED = {"final_train_loss": 0.5, "tokens_per_second": 50.0, "train_seconds": 30.0}
SCORED = {"strict": {"accuracy": 0.625, "stderr": 0.02}, "seconds": 12.0}
EVALUATING = Observation(phase=Phase.RUNNING, attempt=1, progress=Progress(phase="evaluating", step=7, total=20))
READY = Observation(phase=Phase.RUNNING, attempt=1, progress=Progress(phase="ready"))
UNSUPPORTED = Observation(phase=Phase.FAILED, attempt=1, reason="UnsupportedRecipeError", message="no engine")


def snapshot(
    observations: Mapping[Task, Observation],
    results: Mapping[Task, dict[str, Any]],
    reused: Mapping[Task, str] | None = None,
) -> Snapshot:
    manifests = {
        task.name: manifest_of(task.request, **result).model_copy(update={"reused_from": (reused or {}).get(task)})
        for task, result in results.items()
    }
    tasks = {task.name: observation for task, observation in observations.items()}
    observed = Observed(done=frozenset(manifests), tasks=tasks, slots=2)
    return Snapshot(plan=PLAN, observed=observed, manifests=manifests)


def rows_of(
    observations: Mapping[Task, Observation],
    results: Mapping[Task, dict[str, Any]],
    reused: Mapping[Task, str] | None = None,
) -> dict[str, ProgressRow]:
    """Return the rows of a sweep of which everything is trained, by name."""
    before: dict[Task, dict[str, Any]] = {task: {} for task in PLAN.preliminaries}
    trained = dict.fromkeys(PLAN.training_order, TRAINED)
    shown = snapshot(observations, {**before, **trained, **results}, reused)
    return {row.name: row for row in all_rows(shown)}


def test_an_evaluation_says_how_the_base_is_served() -> None:
    assert rows_of({AS_PUBLISHED: EVALUATING}, {})["fp8-s0"].detail == "evaluating"
    row = rows_of({ON_FP8: EVALUATING}, {AS_PUBLISHED: SCORED})["fp8-s0"]
    assert (row.state, row.detail, row.step, row.total) == ("Evaluating", "evaluating under fp8", 7, 20)
    assert row.accuracy == 0.625


def test_the_accuracy_shown_is_that_of_the_base_as_published_and_the_time_that_of_all_evaluations() -> None:
    row = rows_of({}, {AS_PUBLISHED: SCORED, ON_FP8: {**SCORED, "strict": {"accuracy": 0.9, "stderr": 0.1}}})["fp8-s0"]
    assert (row.state, row.accuracy, row.elapsed_s) == ("Succeeded", 0.625, 54.0)


def test_every_model_server_has_a_row_and_is_done_when_nothing_is_left_for_it() -> None:
    names = [row.name for row in service_rows(snapshot({}, {}))]
    assert names == ["prepare", "task check", "model server", "model server under fp8"]
    published = {each.evaluate: SCORED for each in PLAN.runs}
    rows = rows_of({UNDER_FP8: READY}, published)
    assert (rows["model server"].state, rows["model server under fp8"].state) == ("Done", "Running")


def test_what_cannot_be_served_here_is_skipped_with_its_reason() -> None:
    rows = rows_of({UNDER_FP8: UNSUPPORTED}, {each.evaluate: SCORED for each in PLAN.runs})
    assert (rows["model server under fp8"].state, rows["fp8-s0"].state) == ("Skipped", "Skipped")
    shown = rows["fp8-s0"].as_json()
    assert shown["reason"] == "UnsupportedRecipeError"
    assert shown["message"] == "served under fp8: the model server failed: no engine"
    assert "way" not in shown
    assert rows["fp8-s0"].accuracy == 0.625
    assert rows["bf16-s0"].state == "Succeeded"


def test_an_evaluation_that_was_reused_is_named() -> None:
    elsewhere = {ON_FP8: "sweeps/other/0/runs/fp8-s0/eval-fp8"}
    row = rows_of({}, {AS_PUBLISHED: SCORED, ON_FP8: SCORED}, elsewhere)["fp8-s0"]
    assert row.detail == "evaluation under fp8 reused from other/0"


def test_logs_are_asked_for_by_the_stage_that_names_how_the_base_was_served() -> None:
    assert stages_of(SWEEP, "fp8-s0", None) == ("train", "eval", "eval-fp8")
    assert stages_of(SWEEP, "fp8-s0", "eval-fp8") == ("eval-fp8",)
    assert stages_of(SWEEP, "base", None) == ("eval", "eval-fp8")
    assert stages_of(SWEEP, "model-server", None) == ("serve",)
    assert stages_of(SWEEP, "model-server-fp8", None) == ("serve-fp8",)


@pytest.mark.parametrize(
    ("run", "stage", "said"),
    [
        ("bf16-s0", "eval-fp8", r"--stage: .*got 'eval-fp8'\). Use one of train, eval\."),
        ("fp8-s0", "evaluation", r"Use one of train, eval, eval-fp8\."),
        ("model-server-fp4", None, "model-server, model-server-fp8"),
    ],
)
def test_logs_of_a_stage_that_there_is_not(run: str, stage: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        stages_of(SWEEP, run, stage)


def test_a_run_names_its_accuracies_by_the_recipe_that_the_base_was_served_under() -> None:
    on_fp8 = {"strict": {"accuracy": 0.75, "stderr": 0.02}, "seconds": 12.0}
    rows = rows_of({}, {AS_PUBLISHED: SCORED, ON_FP8: on_fp8})
    assert (rows["fp8-s0"].accuracy, rows["fp8-s0"].served_accuracies) == (0.625, {"fp8": 0.75})
    assert rows["fp8-s0"].as_json()["served_accuracies"] == {"fp8": 0.75}
    assert "served_accuracies" not in rows["bf16-s0"].as_json()
    output = io.StringIO()
    view = SweepProgress(title="t", rows=tuple(rows.values()), finished=True)
    Console(file=output, width=200).print(render_progress(view))
    assert "served under fp8 0.750" in output.getvalue()


def test_metrics_have_an_accuracy_for_each_way_of_serving() -> None:
    on_fp8 = {"strict": {"accuracy": 0.75, "stderr": 0.02}, "seconds": 12.0}
    metrics = Metrics()
    metrics.results.update("s", figures_of(snapshot({}, {AS_PUBLISHED: SCORED, ON_FP8: on_fp8})))
    labels = {"sweep": SWEEP.name, "recipe": "fp8", "seed": "0"}
    name = "surogate_bench_served_accuracy"
    assert metrics.registry.get_sample_value("surogate_bench_accuracy", labels) == 0.625
    assert metrics.registry.get_sample_value(name, {**labels, "served_under": "bf16", "merged": "false"}) == 0.625
    assert metrics.registry.get_sample_value(name, {**labels, "served_under": "fp8", "merged": "false"}) == 0.75
    assert (
        metrics.registry.get_sample_value(f"{name}_stderr", {**labels, "served_under": "fp8", "merged": "false"})
        == 0.02
    )


def test_the_status_of_a_cluster_has_accuracies_by_way_of_serving_and_reads_one_without() -> None:
    row = StatusRow(name="fp8-s0", state="Succeeded", accuracy=0.625, served_accuracies={"fp8": 0.75})
    written = SweepStatus(runs=(row,)).to_object()
    assert written["runs"][0]["servedAccuracies"] == {"fp8": 0.75}
    assert SweepStatus.of({"status": written}).runs == (row,)
    del written["runs"][0]["servedAccuracies"]
    assert SweepStatus.of({"status": written}).runs[0].served_accuracies == {}
    field = status_schema()["properties"]["runs"]["items"]["properties"]["servedAccuracies"]
    assert (field["type"], field["additionalProperties"]) == ("object", {"type": "number"})
