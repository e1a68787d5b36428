"""Several model servers: which run, one after another or side by side, and what becomes of runs scored on them."""

from typing import Any

import pytest
from observations import given
from sweeps import small_sweep

from surogate_bench.stages.requests import EvaluateRequest, ServeRequest
from surogate_bench_orchestrator.domain.observed import (
    Failure,
    Observed,
    RunState,
    evaluation_states,
    is_finished,
    run_states,
)
from surogate_bench_orchestrator.domain.plan import Plan, Run, plan
from surogate_bench_orchestrator.domain.reconcile import Delete, Submit, reconcile
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task, stage_of, under_of

RUNNING, PENDING = Observation(phase=Phase.RUNNING, attempt=1), Observation(phase=Phase.PENDING, attempt=1)
UNPLACED = Observation(phase=Phase.PENDING, reason="Unschedulable", unplaced=True)
QUEUED = Observation(phase=Phase.PENDING, queued=True)
FAILED = Observation(phase=Phase.FAILED, attempt=3, reason="Killed", message="out of memory")
UNSUPPORTED = Observation(phase=Phase.FAILED, attempt=1, reason="UnsupportedRecipeError", message="no engine")


def plan_under(*under: str, recipes: tuple[str, ...] = ("bf16", "fp8", "fp4"), **changes: Any) -> Plan:
    sweep = small_sweep(recipes=list(recipes), serving={"under": list(under)}, **changes)
    return plan(sweep, "file:///results")


def run_of(laid_out: Plan, name: str) -> Run:
    return next(run for run in laid_out.runs if run.name == name)


def train(laid_out: Plan, recipe: str) -> Task:
    task = run_of(laid_out, f"{recipe}-s0").train
    assert task is not None
    return task


def evaluate(laid_out: Plan, run: str, under: str | None = None) -> Task:
    return next(each.task for each in run_of(laid_out, run).evaluations if each.under == under)


def server(laid_out: Plan, under: str | None = None) -> Task:
    return next(task for task in laid_out.servers if under_of(task) == under)


def scored_under(laid_out: Plan, under: str | None) -> tuple[Task, ...]:
    return tuple(each.task for run in laid_out.runs for each in run.evaluations if each.under == under)


def all_trained(laid_out: Plan) -> tuple[Task, ...]:
    return (*laid_out.preliminaries, *laid_out.training_order)


# What there is to do


def test_each_way_of_serving_has_a_server_and_each_adapter_only_the_evaluations_requested_for_it() -> None:
    laid_out = plan_under("own")
    assert [under_of(task) for task in laid_out.servers] == [None, "fp8", "fp4"]
    ways = {run.name: [each.under for each in run.evaluations] for run in laid_out.runs}
    assert ways == {
        "base": [None, "fp8", "fp4"], "bf16-s0": [None], "fp8-s0": [None, "fp8"], "fp4-s0": [None, "fp4"],
    }  # fmt: skip
    assert laid_out.server == server(laid_out)
    run = run_of(laid_out, "fp8-s0")
    assert run.evaluate == evaluate(laid_out, "fp8-s0")
    assert run.tasks == (run.train, run.evaluate, evaluate(laid_out, "fp8-s0", "fp8"))


def test_requests_names_and_stages_say_how_the_base_is_served() -> None:
    laid_out = plan_under("own")
    serving, scoring = server(laid_out, "fp8"), evaluate(laid_out, "fp8-s0", "fp8")
    assert isinstance(serving.request, ServeRequest)
    assert isinstance(scoring.request, EvaluateRequest)
    assert (serving.request.under, scoring.request.under) == ("fp8", "fp8")
    assert (stage_of(serving), stage_of(scoring)) == ("serve-fp8", "eval-fp8")
    assert serving.name.startswith("small-serve-fp8-")
    assert scoring.name.startswith("small-fp8-s0-eval-fp8-")
    assert scoring.output == laid_out.layout.eval("fp8-s0", "fp8")
    assert under_of(laid_out.prepare) is None
    assert laid_out.server_of(scoring) == serving


def test_what_is_served_as_published_keeps_its_name_whatever_else_is_served() -> None:
    one, several = plan_under("bf16"), plan_under("own")
    assert stage_of(several.server) == "serve"
    assert {stage_of(task) for task in scored_under(several, None)} == {"eval"}
    assert several.server.name.rpartition("-")[0] == one.server.name.rpartition("-")[0]


def test_names_that_read_the_same_are_distinct() -> None:
    twins = [
        {"name": name, "title": name, "weight_storage": "bf16", "compute": "fp8-hybrid"}
        for name in ("x", "x-s0-eval", "s0-train", "serve")
    ]
    laid_out = plan(small_sweep(recipes=twins, serving={"under": ["all"]}), "file:///results")
    assert len({task.name for task in laid_out.tasks}) == len(laid_out.tasks)


# One slot


def test_with_one_slot_servers_follow_the_trainers_one_after_another() -> None:
    laid_out = plan_under("own")
    done = all_trained(laid_out)
    started = []
    for under in (None, "fp8", "fp4"):
        assert reconcile(laid_out, given(*done)) == (Submit(server(laid_out, under)),)
        started.append(under)
        done = (*done, *scored_under(laid_out, under))
        over = given(*done, tasks={server(laid_out, under): RUNNING})
        assert reconcile(laid_out, over) == (Delete(server(laid_out, under)),)
    assert is_finished(laid_out, given(*done))


def test_an_adapter_is_scored_only_on_the_server_that_is_ready_and_only_where_requested() -> None:
    laid_out = plan_under("own")
    observed = given(*all_trained(laid_out), tasks={server(laid_out, "fp8"): RUNNING})
    assert reconcile(laid_out, observed) == (
        Submit(evaluate(laid_out, "base", "fp8")), Submit(evaluate(laid_out, "fp8-s0", "fp8")),
    )  # fmt: skip


def test_a_server_whose_evaluations_run_is_started_again_where_it_was_lost() -> None:
    laid_out = plan_under("own")
    done = (*all_trained(laid_out), *scored_under(laid_out, None), evaluate(laid_out, "base", "fp8"))
    observed = given(*done, tasks={evaluate(laid_out, "fp8-s0", "fp8"): RUNNING})
    assert reconcile(laid_out, observed) == (Submit(server(laid_out, "fp8")),)


def test_a_server_comes_first_that_can_score_all_that_is_left_for_it() -> None:
    laid_out = plan_under("own")
    done = (*laid_out.preliminaries, train(laid_out, "fp4"), train(laid_out, "fp8"))
    observed = given(*done, tasks={train(laid_out, "bf16"): RUNNING}, slots=2)
    assert reconcile(laid_out, observed) == (Submit(server(laid_out, "fp8")),)


def test_an_idle_server_gives_way_to_one_with_work() -> None:
    laid_out = plan_under("own")
    done = (*laid_out.preliminaries, train(laid_out, "fp4"), train(laid_out, "fp8"))
    scored = [task for task in scored_under(laid_out, None) if task != evaluate(laid_out, "bf16-s0")]
    tasks = {train(laid_out, "bf16"): RUNNING, server(laid_out): RUNNING}
    assert reconcile(laid_out, given(*done, *scored, tasks=tasks, slots=2)) == (Delete(server(laid_out)),)
    tasks[evaluate(laid_out, "fp8-s0")] = RUNNING
    assert reconcile(laid_out, given(*done, *scored, tasks=tasks, slots=2)) == ()


def test_a_server_does_not_give_way_while_there_is_room_for_the_other() -> None:
    laid_out = plan_under("own")
    done = (*laid_out.preliminaries, train(laid_out, "fp4"), train(laid_out, "fp8"))
    scored = [task for task in scored_under(laid_out, None) if task != evaluate(laid_out, "bf16-s0")]
    tasks = {train(laid_out, "bf16"): RUNNING, server(laid_out): RUNNING}
    observed = given(*done, *scored, tasks=tasks, slots=3)
    assert reconcile(laid_out, observed) == (Submit(server(laid_out, "fp8")),)


def test_idle_servers_give_way_to_trainers_without_room_but_one_while_a_trainer_works() -> None:
    laid_out = plan_under("own", evaluation={"evaluate_base": False})
    servers = dict.fromkeys(laid_out.servers, RUNNING)
    assert set(reconcile(laid_out, given(*laid_out.preliminaries, tasks=servers, slots=3))) == {
        Delete(task) for task in laid_out.servers
    }
    working = {**servers, train(laid_out, "fp4"): RUNNING}
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=working, slots=4)) == (
        Delete(server(laid_out, "fp8")), Delete(server(laid_out, "fp4")),
    )  # fmt: skip


# Several slots


def test_servers_run_side_by_side_where_slots_allow() -> None:
    laid_out = plan_under("own")
    observed = given(*all_trained(laid_out), slots=2)
    assert reconcile(laid_out, observed) == (Submit(server(laid_out)), Submit(server(laid_out, "fp8")))


def test_each_server_takes_as_many_evaluations_at_a_time_as_the_sweep_says() -> None:
    laid_out = plan_under("all", evaluation={"parallel_evaluations": 1})
    tasks = {server(laid_out): RUNNING, server(laid_out, "fp8"): RUNNING, evaluate(laid_out, "base", "fp8"): RUNNING}
    observed = given(*all_trained(laid_out), tasks=tasks, slots=2)
    assert reconcile(laid_out, observed) == (Submit(evaluate(laid_out, "base")),)


def test_overlapped_one_server_runs_beside_trainers_and_not_those_that_could_score_the_base_only() -> None:
    laid_out = plan_under("own", placement="overlapped")
    prepared = laid_out.preliminaries
    assert reconcile(laid_out, given(*prepared, slots=2)) == (
        Submit(server(laid_out)),
        Submit(train(laid_out, "fp4")),
    )
    idle = given(
        *prepared, evaluate(laid_out, "base"), tasks={server(laid_out): RUNNING, train(laid_out, "fp4"): RUNNING},
        slots=2,
    )  # fmt: skip
    assert reconcile(laid_out, idle) == ()


def test_overlapped_an_idle_server_gives_way_to_one_that_completes_its_work() -> None:
    laid_out = plan_under("own", placement="overlapped")
    done = (*laid_out.preliminaries, train(laid_out, "fp4"), evaluate(laid_out, "base"), evaluate(laid_out, "fp4-s0"))
    tasks = {train(laid_out, "fp8"): RUNNING}
    before = given(*done, tasks={**tasks, server(laid_out): RUNNING}, slots=2)
    assert reconcile(laid_out, before) == (Delete(server(laid_out)),)
    assert reconcile(laid_out, given(*done, tasks=tasks, slots=2)) == (Submit(server(laid_out, "fp4")),)


def test_where_slots_are_not_counted_servers_with_work_are_queued_once_no_trainer_is() -> None:
    laid_out = plan_under("own")
    done = (*laid_out.preliminaries, train(laid_out, "fp4"), train(laid_out, "fp8"))
    waiting = given(*done, tasks={train(laid_out, "bf16"): QUEUED}, slots=None)
    assert reconcile(laid_out, waiting) == ()
    working = given(*done, tasks={train(laid_out, "bf16"): RUNNING}, slots=None)
    assert {action.task for action in reconcile(laid_out, working)} == set(laid_out.servers)


def test_where_slots_are_not_counted_an_idle_server_gives_way_to_one_without_room() -> None:
    laid_out = plan_under("own")
    done = (*laid_out.preliminaries, train(laid_out, "fp4"), train(laid_out, "fp8"))
    scored = [task for task in scored_under(laid_out, None) if task != evaluate(laid_out, "bf16-s0")]
    tasks = {train(laid_out, "bf16"): RUNNING, server(laid_out): RUNNING, server(laid_out, "fp8"): UNPLACED}
    done = (*done, *scored, *scored_under(laid_out, "fp4"))
    assert reconcile(laid_out, given(*done, tasks=tasks, slots=None)) == (Delete(server(laid_out)),)
    tasks[server(laid_out, "fp8")] = RUNNING
    assert Delete(server(laid_out)) not in reconcile(laid_out, given(*done, tasks=tasks, slots=None))


# What becomes of a run


def states_of(laid_out: Plan, run: str, observed: Observed) -> dict[str | None, RunState]:
    statuses = evaluation_states(laid_out, run_of(laid_out, run), observed)
    return {each.under: statuses[each.task.name].state for each in run_of(laid_out, run).evaluations}


def test_a_run_succeeds_with_the_last_of_its_evaluations() -> None:
    laid_out = plan_under("own")
    scored = (*all_trained(laid_out), evaluate(laid_out, "fp8-s0"))
    waiting = given(*scored)
    assert states_of(laid_out, "fp8-s0", waiting) == {None: RunState.SUCCEEDED, "fp8": RunState.TRAINED}
    assert run_states(laid_out, waiting)["fp8-s0"].state is RunState.TRAINED
    scoring = given(*scored, tasks={evaluate(laid_out, "fp8-s0", "fp8"): RUNNING})
    assert run_states(laid_out, scoring)["fp8-s0"].state is RunState.EVALUATING
    done = given(*scored, evaluate(laid_out, "fp8-s0", "fp8"))
    assert run_states(laid_out, done)["fp8-s0"].state is RunState.SUCCEEDED


def test_an_evaluation_that_fails_fails_its_run_in_the_end_and_loses_no_other() -> None:
    laid_out = plan_under("own")
    failing = {evaluate(laid_out, "fp8-s0", "fp8"): FAILED}
    running = given(*all_trained(laid_out), tasks={**failing, evaluate(laid_out, "fp8-s0"): RUNNING})
    assert states_of(laid_out, "fp8-s0", running) == {None: RunState.EVALUATING, "fp8": RunState.FAILED}
    assert run_states(laid_out, running)["fp8-s0"].state is RunState.EVALUATING
    ended = run_states(laid_out, given(*all_trained(laid_out), evaluate(laid_out, "fp8-s0"), tasks=failing))["fp8-s0"]
    assert (ended.state, str(ended.failure)) == (RunState.FAILED, "Killed: served under fp8: out of memory")


def test_a_recipe_that_cannot_be_served_here_skips_what_was_to_be_scored_on_it_only() -> None:
    laid_out = plan_under("own")
    observed = given(
        *all_trained(laid_out), *scored_under(laid_out, None), *scored_under(laid_out, "fp4"),
        tasks={server(laid_out, "fp8"): UNSUPPORTED},
    )  # fmt: skip
    states = run_states(laid_out, observed)
    assert {name: status.state for name, status in states.items()} == {
        "base": RunState.SKIPPED, "bf16-s0": RunState.SUCCEEDED, "fp8-s0": RunState.SKIPPED,
        "fp4-s0": RunState.SUCCEEDED,
    }  # fmt: skip
    message = "served under fp8: the model server failed: no engine"
    assert states["fp8-s0"].failure == Failure("UnsupportedRecipeError", message, "served under fp8")
    assert reconcile(laid_out, observed) == ()


def test_a_failure_counts_more_than_a_lack_of_capability() -> None:
    laid_out = plan_under("all")
    tasks = {server(laid_out, "fp8"): UNSUPPORTED, evaluate(laid_out, "fp8-s0", "fp4"): FAILED}
    observed = given(*all_trained(laid_out), evaluate(laid_out, "fp8-s0"), tasks=tasks)
    assert run_states(laid_out, observed)["fp8-s0"].state is RunState.FAILED


def test_a_failed_server_stops_what_waits_for_it_and_the_others_go_on() -> None:
    laid_out = plan_under("own")
    tasks = {
        server(laid_out, "fp8"): FAILED, evaluate(laid_out, "base", "fp8"): RUNNING, server(laid_out): RUNNING,
    }  # fmt: skip
    assert set(reconcile(laid_out, given(*all_trained(laid_out), tasks=tasks, slots=1))) == {
        Submit(evaluate(laid_out, "base")), Submit(evaluate(laid_out, "bf16-s0")),
        Delete(evaluate(laid_out, "base", "fp8")),
    }  # fmt: skip


def test_a_run_whose_training_failed_is_scored_on_no_server() -> None:
    laid_out = plan_under("own")
    done = (*laid_out.preliminaries, train(laid_out, "bf16"), train(laid_out, "fp4"), *scored_under(laid_out, None))
    done = (*done, *scored_under(laid_out, "fp4"), evaluate(laid_out, "base", "fp8"))
    observed = given(*done, tasks={train(laid_out, "fp8"): FAILED})
    assert reconcile(laid_out, observed) == ()
    assert str(run_states(laid_out, observed)["fp8-s0"].failure) == "Killed: out of memory"


@pytest.mark.parametrize("message", ["", "why"])
def test_a_failure_without_a_message_names_the_way_of_serving_all_the_same(message: str) -> None:
    laid_out = plan_under("own")
    failing = {evaluate(laid_out, "fp8-s0", "fp8"): Observation(phase=Phase.FAILED, reason="Exited", message=message)}
    observed = given(*all_trained(laid_out), evaluate(laid_out, "fp8-s0"), tasks=failing)
    said = "Exited: served under fp8" + (f": {message}" if message else "")
    assert str(run_states(laid_out, observed)["fp8-s0"].failure) == said
