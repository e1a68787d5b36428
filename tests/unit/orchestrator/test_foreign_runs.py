"""Foreign adapters among the runs of a sweep: imported instead of trained, and scored like the others."""

from pathlib import Path
from typing import Any

import pytest
from sweeps import small_sweep
from worlds.sweep import SweepWorld

from surogate_bench.contract import Service
from surogate_bench.stages.requests import ImportRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.cli.targets.logs import stages_of
from surogate_bench_orchestrator.controller.metrics.figures import figures_of
from surogate_bench_orchestrator.domain.observed import Observed, RunState, run_states
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.reconcile import Submit, reconcile
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task
from surogate_bench_orchestrator.sweep.rows import run_rows, warnings_of

THEIRS = {"name": "theirs", "hub": "lab/adapter"}


def planned(**changes: Any) -> Plan:
    return plan(small_sweep(**{"adapters": [THEIRS], **changes}), "file:///results")


def import_of(laid_out: Plan) -> Task:
    (task,) = laid_out.imports
    return task


def test_an_adapter_is_a_run_after_those_of_recipes_and_its_import_holds_no_slot() -> None:
    laid_out = planned(seeds=[0, 1])
    assert [run.name for run in laid_out.runs] == ["base", "bf16-s0", "bf16-s1", "theirs"]
    assert [run.row for run in laid_out.runs] == ["base", "bf16", "bf16", "theirs"]
    task = import_of(laid_out)
    assert (task.service, task.slots) == (Service.TRAINER, 0)
    assert task.output == f"sweeps/small/{laid_out.sweep.spec_hash}/runs/theirs/train"
    assert task not in laid_out.training_order


def test_an_adapter_is_scored_under_the_recipe_that_it_was_trained_with() -> None:
    theirs = THEIRS | {"trained_under": "fp8"}
    served = {run.name: run.evaluations for run in planned(
        recipes=["bf16", "fp8", "qbnb"], adapters=[theirs], serving={"under": ["own"]}
    ).runs}  # fmt: skip
    assert [each.under for each in served["theirs"]] == [None, "fp8"]
    served = {run.name: run.evaluations for run in planned(recipes=["bf16", "fp8"], serving={"under": ["fp8"]}).runs}
    assert [each.under for each in served["theirs"]] == [None, "fp8"]
    assert [each.under for each in planned().runs[-1].evaluations] == [None]


def test_adapters_are_imported_once_the_sweep_is_prepared_however_few_slots_there_are() -> None:
    laid_out = planned()
    assert import_of(laid_out) not in {action.task for action in reconcile(laid_out, observed())}
    actions = reconcile(laid_out, observed(*laid_out.preliminaries))
    assert Submit(import_of(laid_out)) in actions
    assert Submit(laid_out.training_order[0]) in actions


def test_a_refused_adapter_fails_its_run_and_no_other() -> None:
    laid_out = planned()
    failed = Observation(phase=Phase.FAILED, attempt=1, reason="ConfigError", message="use_dora")
    found = observed(*laid_out.preliminaries, tasks={import_of(laid_out): failed})
    states = run_states(laid_out, found)
    assert states["theirs"].state is RunState.FAILED
    assert str(states["theirs"].failure) == "ConfigError: use_dora"
    assert states["bf16-s0"].state is RunState.PENDING


def test_an_import_is_shown_as_such() -> None:
    laid_out = planned()
    running = {import_of(laid_out): Observation(phase=Phase.RUNNING, attempt=1)}
    assert run_states(laid_out, observed(*laid_out.preliminaries, tasks=running))["theirs"].state is RunState.IMPORTING
    assert stages_of(laid_out.sweep, "theirs", None) == ("import", "eval")


def observed(*done: Task, tasks: dict[Task, Observation] | None = None) -> Observed:
    given = {task.name: each for task, each in (tasks or {}).items()}
    return Observed(done=frozenset(task.name for task in done), tasks=given, slots=1)


@pytest.fixture
def world(tmp_path: Path) -> SweepWorld:
    return SweepWorld(open_store(str(tmp_path / "store")), tmp_path / "scratch", {"adapters": [THEIRS]})


def test_a_sweep_with_an_adapter_ends_with_its_score_and_what_its_import_warned_of(world: SweepWorld) -> None:
    last = world.run()
    rows = {row.name: row for row in run_rows(last)}
    assert (rows["theirs"].state, rows["theirs"].accuracy) == ("Succeeded", 0.5)
    assert warnings_of(last) == ("theirs: Its base model has another name.",)
    (figures,) = (each for each in figures_of(last).runs if each.recipe == "theirs")
    assert (figures.seed, figures.accuracy, figures.tokens_per_second) == ("", 0.5, None)


def test_an_adapter_of_equal_content_is_imported_again_and_not_scored_again(world: SweepWorld) -> None:
    world.run()
    world.run(name="other", adapters=[THEIRS | {"name": "renamed"}])
    assert [type(task.request) for task in world.submitted if "renamed" in task.name] == [ImportRequest]
    world.run(name="third", adapters=[THEIRS | {"hub": "lab/another"}])
    assert len([task for task in world.submitted if "theirs" in task.name]) == 2
