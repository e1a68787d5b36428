"""Further tasks of a sweep: planned, reused, shown in status, and reported in tables of their own."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from finished_stages import publish
from rich.console import Console
from sweeps import small_sweep
from worlds.report import MakeWorld, ReportWorld, ended_lines, summarized
from worlds.sweep import SweepWorld

from surogate_bench.results import SampleLine
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import CheckRequest, EvaluateRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.cli.targets.logs import stages_of
from surogate_bench_orchestrator.cli.terminal.live_table import render_progress
from surogate_bench_orchestrator.controller.metrics.figures import figures_of
from surogate_bench_orchestrator.domain.observed import Observed
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.reconcile import reconcile
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task, stage_of
from surogate_bench_orchestrator.report import Summary, build_report, render_terminal_table
from surogate_bench_orchestrator.report.model.further import FurtherTask
from surogate_bench_orchestrator.report.model.summary import Row
from surogate_bench_orchestrator.report.tables.further import further_table
from surogate_bench_orchestrator.resource.model import resource_of
from surogate_bench_orchestrator.sweep.reuse import ReusableStages
from surogate_bench_orchestrator.sweep.rows import SweepProgress, all_rows

ENGLISH = {"name": "ro_gsm8k", "data": {"builtin": "word-problems-en", "test_size": 5}}
CHOICE = {"name": "ARC_easy.v-2", "limit": 10}
TASKS = {"tasks": ["gsm8k", ENGLISH, CHOICE]}


def sweep(**changes: Any) -> RecipeSweep:
    return small_sweep(**{"recipes": ["bf16", "fp8"], "evaluation": TASKS} | changes)


def test_each_run_is_scored_on_each_task_on_the_base_as_published_and_on_the_primary_one_everywhere() -> None:
    laid_out = plan(sweep(serving={"under": ["own"], "merged": True}), "file:///results")
    fp8 = next(run for run in laid_out.runs if run.name == "fp8-s0")
    assert [(each.further, each.under, each.merged) for each in fp8.evaluations] == [
        (None, None, False),
        (None, "fp8", False),
        ("ro_gsm8k", None, False),
        ("ARC_easy.v-2", None, False),
        (None, None, True),
        (None, "fp8", True),
    ]
    assert {each.server for each in fp8.evaluations if each.further} == {laid_out.server}
    assert fp8.evaluate.output == f"{laid_out.layout.root}/runs/fp8-s0/eval"
    assert stage_of(fp8.evaluations[3].task) == "task-ARC_easy.v-2"


def test_every_task_is_checked_before_training_and_names_are_labels_that_differ() -> None:
    laid_out = plan(sweep(evaluation={"tasks": ["gsm8k", "a_b", "a-b"]}), "file:///results")
    checked = [each.request.task for each in laid_out.checks if isinstance(each.request, CheckRequest)]
    assert checked == [None, "a_b", "a-b"]
    names = [task.name for task in laid_out.tasks]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in names)
    outputs = [task.output for task in laid_out.tasks if task.output]
    assert len(set(outputs)) == len(outputs)


def test_tasks_of_one_adapter_are_scored_one_after_another_as_the_first_to_end_unloads_it() -> None:
    laid_out = plan(sweep(evaluation={**TASKS, "parallel_evaluations": 6}), "file:///results")
    base, bf16, fp8 = laid_out.runs
    done = {task.name for task in (*laid_out.preliminaries, *laid_out.training_order)}
    running = Observation(phase=Phase.RUNNING, attempt=1)
    for active, started in (
        ([], [*base.evaluations, bf16.evaluations[0], fp8.evaluations[0]]),
        ([*base.evaluations, bf16.evaluations[1]], [fp8.evaluations[0]]),
    ):
        tasks = {each.task.name: running for each in active} | {laid_out.server.name: running}
        actions = reconcile(laid_out, Observed(done=frozenset(done), tasks=tasks, slots=1))
        assert [action.task for action in actions] == [each.task for each in started]


@pytest.mark.parametrize("evaluation", [{"task": "gsm8k"}, {"tasks": ["gsm8k"]}])
def test_a_sweep_without_further_tasks_is_planned_as_ever(evaluation: dict[str, Any]) -> None:
    laid_out = plan(sweep(evaluation=evaluation), "file:///results")
    checked = [task.request for task in laid_out.tasks if isinstance(task.request, CheckRequest)]
    assert [(request.subject, request.task) for request in checked] == [("task", None)]
    assert [len(run.evaluations) for run in laid_out.runs] == [1, 1, 1]
    requests = [
        task.request for run in laid_out.runs for task in run.tasks if isinstance(task.request, EvaluateRequest)
    ]
    assert all("task" not in json.loads(request.model_dump_json(exclude={"sweep"})) for request in requests)


def finished(laid_out: Plan, folder: Path, tasks: list[Task]) -> dict[str, Manifest]:
    """Publish stages; return the manifests of the sweep."""
    store = open_store(str(folder / "store"))
    for task in tasks:
        publish(store, task, folder / "scratch")
    found = {task.name: read_manifest(store, task.output) for task in laid_out.tasks if task.output}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def test_adding_a_task_repeats_nothing_and_a_finished_further_task_is_reused(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    before = plan(sweep(evaluation={"tasks": ["gsm8k", ENGLISH]}), store)
    open_store(store).put(before.layout.spec, before.sweep.model_dump_json().encode())
    finished(before, tmp_path, [task for task in before.tasks if task.output])
    after = plan(sweep(evaluation={"tasks": ["gsm8k", ENGLISH | {"limit": 3}, CHOICE]}), store)
    same = plan(sweep(evaluation={"tasks": [{"name": "gsm8k"}, ENGLISH]}, seeds=[0, 1]), store)
    for laid_out, repeated in ((after, 2), (same, 0)):
        manifests = finished(laid_out, tmp_path, [laid_out.prepare])
        stages = ReusableStages(open_store(store), laid_out)
        trained = stages.find(manifests)
        training_tasks = [run.train for run in laid_out.runs if run.train and run.seed == 0]
        assert {task.name for task in training_tasks} <= trained.keys()
        manifests |= finished(laid_out, tmp_path, training_tasks)
        found = stages.find(manifests)
        missing = [each.further for each in laid_out.runs[0].evaluations if each.task.name not in found]
        assert len(missing) == repeated


def test_a_sweep_runs_through_every_task_and_shows_each_accuracy(tmp_path: Path) -> None:
    settings = {"recipes": ["bf16", "fp8"], "evaluation": TASKS}
    world = SweepWorld(open_store(str(tmp_path / "store")), tmp_path / "scratch", settings)
    last = world.run()
    rows = {row.name: row for row in all_rows(last)}
    assert {row.state for row in rows.values()} <= {"Done", "Succeeded"}
    assert rows["fp8-s0"].task_accuracies == {"ro_gsm8k": 0.5, "ARC_easy.v-2": 0.5}
    assert rows["fp8-s0"].served_accuracies == {}
    assert "task check of ro_gsm8k" in rows
    out = io.StringIO()
    progress = SweepProgress(title="small", rows=tuple(rows.values()), finished=True)
    Console(width=200, file=out).print(render_progress(progress))
    assert "tasks: ro_gsm8k 0.500, ARC_easy.v-2 0.500" in out.getvalue()
    figures = next(run for run in figures_of(last).runs if run.recipe == "fp8")
    assert [each.task for each in figures.tasks] == ["ro_gsm8k", "ARC_easy.v-2"]


def test_logs_of_a_further_task_are_a_stage_of_its_run() -> None:
    assert stages_of(sweep(), "fp8-s0", "task-ro_gsm8k") == ("task-ro_gsm8k",)
    assert stages_of(sweep(), "task-check-ro_gsm8k", None) == ("check-task-ro_gsm8k",)


def test_a_cluster_is_refused_local_paths_of_a_further_task() -> None:
    for entry in ({"tasks_dir": "/tasks"}, {"data": {"path": "/records"}}):
        with pytest.raises(Exception, match="is a folder of this machine") as caught:
            resource_of(sweep(evaluation={"tasks": ["gsm8k", {"name": "b", **entry}]}))
        assert "evaluation.tasks.b" in str(caught.value)


def published(world: ReportWorld) -> dict[str, FurtherTask]:
    world.publish_everything()
    for run, right in (("base", 50), ("bf16-s0", 40), ("fp8-s0", 28)):
        world.publish_eval(run, [index < right for index in range(100)], task="ro_gsm8k")
    world.publish_eval("base", [index < 30 for index in range(100)], task="ARC_easy.v-2", accuracy_is="acc")
    return {further.task: further for further in summarized(world, draw=True).further}


def row(further: FurtherTask, key: str) -> Row:
    return next(found for found in further.rows if found.key == key)


def test_every_task_has_a_table_with_paired_comparisons_of_its_own(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], evaluation=TASKS)
    further = published(world)
    english, choice = further["ro_gsm8k"], further["ARC_easy.v-2"]
    fp8 = row(english, "fp8")
    assert fp8.score is not None
    assert (fp8.score.accuracy, fp8.training) == (0.28, None)
    assert fp8.versus_reference is not None
    assert (fp8.versus_reference.only_this, fp8.versus_reference.only_reference) == (0, 12)
    assert fp8.versus_reference.p_questions == pytest.approx(2 * 0.5**12)
    assert fp8.versus_base is not None
    assert fp8.versus_base.delta == pytest.approx(-0.22)
    assert "word-problems-en" in english.evaluated_on
    assert (choice.metric, row(choice, "bf16").state) == ("acc", "pending")
    assert choice.evaluated_on.endswith("accuracy is acc.")


def test_p_values_of_a_task_are_adjusted_over_its_own_recipes_alone(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], evaluation=TASKS)
    world.publish_everything()
    for run, right in (("bf16-s0", 60), ("fp8-s0", 45), ("fp4-s0", 55)):
        world.publish_eval(run, [index < right for index in range(100)], task="ro_gsm8k")
    english = summarized(world).further[0]
    fp8, fp4 = (row(english, key).versus_reference for key in ("fp8", "fp4"))
    assert fp8 is not None
    assert fp4 is not None
    assert [each.p_questions for each in (fp8, fp4)] == pytest.approx([2 * 0.5**15, 2 * 0.5**5])
    assert [each.p_questions_adjusted for each in (fp8, fp4)] == pytest.approx([2 * 2 * 0.5**15, 2 * 0.5**5])


def test_the_tables_are_in_every_file_and_the_main_table_is_that_of_the_primary_task(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], evaluation=TASKS)
    published(world)
    summary = Summary.model_validate_json(world.report_file("summary.json"))
    assert [further.task for further in summary.further] == ["ro_gsm8k", "ARC_easy.v-2"]
    assert summary.task == "gsm8k"
    markdown, page = world.report_file("summary.md").decode(), world.report_file("report.html").decode()
    assert "## Further tasks" in markdown
    assert "| FP8 | 0.2800 |" in markdown
    assert "Further tasks" in page
    assert "0.2800" in page
    lines = world.csv_lines("tasks.csv")
    found = {(each["task"], each["key"]): each for each in lines}
    assert found["ro_gsm8k", "fp8"]["accuracy"] == "0.28"
    assert found["ARC_easy.v-2", "base"]["metric"] == "acc"
    out = io.StringIO()
    Console(width=160, file=out).print(render_terminal_table(summary))
    assert "ro_gsm8k (strict exact match): Base model 0.5000, BF16 0.4000, FP8 0.2800" in out.getvalue()


@pytest.mark.parametrize(("metric", "has_ends"), [("exact_match,remove_whitespace", True), ("acc", False)])
def test_empty_answers_are_a_column_of_every_task_that_generates_and_of_no_other(
    report_world: MakeWorld, metric: str, has_ends: bool
) -> None:
    world = report_world(recipes=["bf16"], evaluation=TASKS)
    world.publish_everything()
    ends = {"finish_reason": "stop", "tokens": 1} if has_ends else {}
    lines = [
        SampleLine(index=i, question="?", target="a", response="a", strict_match=True, flexible_match=True, **ends)
        for i in range(100)
    ]
    world.publish_eval("base", [True] * 100, lines=lines, task="ro_gsm8k", accuracy_is=metric)
    summary = summarized(world)
    assert ("empty answers" in further_table(summary, summary.further[0]).header) == has_ends


def test_a_further_task_has_its_runs_and_notes_of_how_its_own_answers_ended(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1], evaluation=TASKS)
    world.publish_everything()
    for run, right, cut_off in (("bf16-s0", 40, 0), ("bf16-s1", 41, 0), ("fp8-s0", 38, 6), ("fp8-s1", 36, 9)):
        samples = ended_lines(right, cut_off=cut_off)
        world.publish_eval(run, [line.strict_match for line in samples], lines=samples, task="ro_gsm8k")
    world.publish_eval("base", [index < 30 for index in range(100)], task="ARC_easy.v-2", accuracy_is="acc")
    english, choice = summarized(world).further
    runs = ["bf16-s0", "bf16-s1", "fp8-s0", "fp8-s1"]
    assert [each.key for each in english.rows] == ["base", "bf16", "fp8"]
    assert {each.key: each.score.accuracy for each in english.runs if each.score} == dict(
        zip(runs, (0.4, 0.41, 0.38, 0.36), strict=True)
    )
    cut_off, unfinished = english.notes
    assert "Answers were cut off" in cut_off
    assert "FP8 15 of 200" in cut_off
    assert "alone could explain the differences of FP8 to BF16:" in unfinished
    assert choice.notes == ()
    found = world.csv_lines("tasks.csv")
    keys = ["base", "bf16", "fp8", *runs]
    assert [(each["task"], each["key"]) for each in found] == [
        *(("ro_gsm8k", key) for key in keys),
        *(("ARC_easy.v-2", key) for key in keys),
    ]
    assert {(each["task"], each["metric"], each["second_metric"]) for each in found} == {
        ("ro_gsm8k", "strict exact match", "flexible exact match"),
        ("ARC_easy.v-2", "acc", ""),
    }


def test_a_sweep_with_one_task_has_nothing_about_further_ones(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_everything()
    report = build_report(world.store, world.sweep, {})
    assert "further" not in json.loads(report.summary.model_dump_json())
    summarized(world)
    assert world.store.get(f"{world.layout.report}/tasks.csv") is None
    assert "Further tasks" not in world.report_file("summary.md").decode() + world.report_file("report.html").decode()
