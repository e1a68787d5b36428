"""Foreign trainers among the runs of a sweep: trained in a slot once per seed, reused and shown like recipes."""

from pathlib import Path
from typing import Any

import pytest
from stand_ins.clock import FakeClock
from sweeps import small_sweep
from worlds.sweep import SweepWorld

from surogate_bench.contract import Service
from surogate_bench.stages.requests import ForeignTrainRequest, TrainRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.cli.targets.logs import stages_of
from surogate_bench_orchestrator.controller.metrics.figures import figures_of
from surogate_bench_orchestrator.domain.observed import Observed, RunState, run_states
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task, stage_of
from surogate_bench_orchestrator.runtimes.local.machine import Allotment
from surogate_bench_orchestrator.runtimes.local.runtime import LocalRuntime
from surogate_bench_orchestrator.sweep.rows import run_rows, warnings_of

OTHER = {"name": "other", "command": ["other-train", "{request}"]}


def planned(**changes: Any) -> Plan:
    return plan(small_sweep(**{"trainers": [OTHER], **changes}), "file:///results")


def tasks_of(laid_out: Plan) -> list[Task]:
    return [run.train for run in laid_out.runs if run.trainer and run.train]


def test_a_trainer_has_a_run_per_seed_after_the_recipes_and_holds_a_slot_while_it_trains() -> None:
    laid_out = planned(seeds=[0, 1], adapters=[{"name": "theirs", "hub": "lab/adapter"}])
    names = ["base", "bf16-s0", "bf16-s1", "other-s0", "other-s1", "theirs"]
    assert [run.name for run in laid_out.runs] == names
    assert [(run.row, run.seed) for run in laid_out.runs[3:5]] == [("other", 0), ("other", 1)]
    first, second = tasks_of(laid_out)
    assert (first.service, first.slots, stage_of(first)) == (Service.TRAINER, 1, "train")
    assert second.output == f"sweeps/small/{laid_out.sweep.spec_hash}/runs/other-s1/train"
    assert laid_out.training_order[:2] == (first, second)
    assert stages_of(laid_out.sweep, "other-s1", None) == ("train", "eval")


def test_a_trainers_adapters_are_scored_under_the_recipe_that_it_states() -> None:
    changes = {"recipes": ["bf16", "fp8", "qbnb"], "serving": {"under": ["own"]}}
    runs = {run.name: run for run in planned(trainers=[OTHER | {"trained_under": "fp8"}], **changes).runs}
    assert [each.under for each in runs["other-s0"].evaluations] == [None, "fp8"]
    runs = {run.name: run for run in planned(recipes=["bf16", "fp8"], serving={"under": ["all"]}).runs}
    assert [each.under for each in runs["other-s0"].evaluations] == [None, "fp8"]


def test_the_time_for_a_trainer_allows_every_attempt_its_deadline_and_the_checks() -> None:
    (task,) = tasks_of(planned(trainers=[OTHER | {"timeout_s": 100}], max_attempts=2))
    assert task.timeout_s == 200 + 3600
    (task,) = tasks_of(planned(train_timeout_s=50, max_attempts=3))
    assert task.timeout_s == 150 + 3600


def test_a_trainer_that_fails_fails_its_run_and_no_other() -> None:
    laid_out = planned(seeds=[0, 1])
    first, second = tasks_of(laid_out)
    observed = {
        first.name: Observation(phase=Phase.FAILED, attempt=1, reason="ForeignTrainerError", message="exit code 1"),
        second.name: Observation(phase=Phase.RUNNING, attempt=1),
    }
    done = frozenset(task.name for task in laid_out.preliminaries)
    states = run_states(laid_out, Observed(done=done, tasks=observed, slots=1))
    assert str(states["other-s0"].failure) == "ForeignTrainerError: exit code 1"
    assert states["other-s1"].state is RunState.TRAINING
    assert states["bf16-s0"].state is RunState.PENDING


def test_a_trainer_on_this_machine_receives_its_number_of_threads(tmp_path: Path) -> None:
    runtime = LocalRuntime(tmp_path, Allotment(slots=2, side_by_side=2, threads=3), FakeClock())
    (task,) = tasks_of(planned())
    shown = runtime.render(task)
    assert (shown["request"]["threads"], shown["request"]["side_by_side"]) == (3, 2)
    assert shown["environment"]["OMP_NUM_THREADS"] == "3"


def trained(world: SweepWorld) -> list[str]:
    """Runs that the last sweep trained."""
    requests = [task.request for task in world.submitted]
    ours = [f"{each.recipe}-s{each.seed}" for each in requests if isinstance(each, TrainRequest)]
    return ours + [f"{each.trainer}-s{each.seed}" for each in requests if isinstance(each, ForeignTrainRequest)]


@pytest.fixture
def world(tmp_path: Path) -> SweepWorld:
    return SweepWorld(open_store(str(tmp_path / "store")), tmp_path / "scratch", {"trainers": [OTHER]})


def test_a_sweep_with_a_trainer_ends_with_its_scores_figures_and_warnings(world: SweepWorld) -> None:
    last = world.run()
    rows = {row.name: row for row in run_rows(last)}
    assert (rows["other-s0"].state, rows["other-s0"].accuracy, rows["other-s0"].loss) == ("Succeeded", 0.5, 1.5)
    assert rows["other-s0"].tokens_per_second is None
    assert warnings_of(last) == ("other-s0: It reported no speed.",)
    (figures,) = (each for each in figures_of(last).runs if each.recipe == "other")
    assert (figures.seed, figures.final_loss, figures.tokens_per_second) == ("0", 1.5, None)


def test_equal_foreign_training_runs_and_their_scores_are_reused_and_others_are_computed(world: SweepWorld) -> None:
    world.run()
    assert trained(world) == ["bf16-s0", "other-s0"]
    renamed = OTHER | {"name": "renamed", "timeout_s": 5}
    world.run(name="second", seeds=[0, 1], trainers=[renamed])
    assert trained(world) == ["bf16-s1", "renamed-s1"]
    assert not [task for task in world.submitted if "renamed-s0" in task.name]
    world.run(name="third", trainers=[OTHER | {"command": ["other-train", "--fast"]}])
    assert trained(world) == ["other-s0"]
