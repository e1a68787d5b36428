"""What to do next: each rule, and that everything converges whatever happens on the way."""

from dataclasses import replace
from typing import Any

import pytest
from observations import given
from sweeps import small_sweep

from surogate_bench.specs import Placement
from surogate_bench_orchestrator.domain.observed import RunState, failure_of, is_finished, run_states
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.reconcile import MAX_QUEUED, Delete, Reuse, Submit, overlaps, reconcile
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task

RUNNING, PENDING = Observation(phase=Phase.RUNNING, attempt=1), Observation(phase=Phase.PENDING, attempt=1)
SUCCEEDED = Observation(phase=Phase.SUCCEEDED, attempt=1)
FAILED = Observation(phase=Phase.FAILED, attempt=3, reason="Killed", message="out of memory")


def small_plan(recipes: tuple[str, ...] = ("bf16", "fp8"), **changes: Any) -> Plan:
    sections: dict[str, Any] = {"recipes": list(recipes), "evaluation": {"parallel_evaluations": 2}}
    return plan(small_sweep(**sections | changes), "file:///results")


def train(laid_out: Plan, recipe: str) -> Task:
    task = next(run.train for run in laid_out.runs if run.name == f"{recipe}-s0")
    assert task is not None
    return task


def evaluate(laid_out: Plan, run: str) -> Task:
    return next(each.evaluate for each in laid_out.runs if each.name == run)


def test_preparation_comes_before_everything() -> None:
    laid_out = small_plan()
    assert reconcile(laid_out, given()) == (Submit(laid_out.prepare),)


def test_nothing_is_done_while_preparation_runs() -> None:
    laid_out = small_plan()
    assert reconcile(laid_out, given(tasks={laid_out.prepare: RUNNING})) == ()


def test_failed_preparation_stops_whatever_runs_and_fails_every_run() -> None:
    laid_out = small_plan()
    observed = given(tasks={laid_out.prepare: FAILED, train(laid_out, "bf16"): RUNNING})
    assert reconcile(laid_out, observed) == (Delete(train(laid_out, "bf16")),)
    assert {status.state for status in run_states(laid_out, observed).values()} == {RunState.FAILED}


def test_what_is_finished_elsewhere_is_referred_to_before_anything_starts() -> None:
    laid_out = small_plan()
    trained, scored = train(laid_out, "bf16"), evaluate(laid_out, "base")
    elsewhere = {trained.name: "sweeps/other/0/runs/bf16-s0/train", scored.name: "sweeps/other/0/runs/base/eval"}
    observed = replace(given(*laid_out.preliminaries, slots=2), reusable=elsewhere)
    assert reconcile(laid_out, observed) == (
        Reuse(trained, elsewhere[trained.name]),
        Reuse(scored, elsewhere[scored.name]),
    )


def test_a_sweep_of_which_all_is_finished_elsewhere_is_not_even_checked() -> None:
    laid_out = small_plan()
    runs = (*laid_out.training_order, *(run.evaluate for run in laid_out.runs))
    observed = replace(given(laid_out.prepare), reusable={task.name: "sweeps/other" for task in runs})
    assert {type(action) for action in reconcile(laid_out, observed)} == {Reuse}
    assert is_finished(laid_out, given(laid_out.prepare, *runs))


def test_what_runs_already_is_left_to_run() -> None:
    laid_out = small_plan()
    trained = train(laid_out, "bf16")
    observed = replace(
        given(*laid_out.preliminaries, tasks={trained: RUNNING}), reusable={trained.name: "sweeps/other"}
    )
    assert not any(isinstance(action, Reuse) for action in reconcile(laid_out, observed))


def test_the_task_is_checked_once_the_data_is_prepared_and_nothing_is_trained_until_it_has_passed() -> None:
    laid_out = small_plan()
    (check,) = laid_out.checks
    assert reconcile(laid_out, given(laid_out.prepare, slots=9)) == (Submit(check),)
    assert reconcile(laid_out, given(laid_out.prepare, tasks={check: RUNNING}, slots=9)) == ()


def test_the_servers_arguments_are_checked_side_by_side_with_preparation() -> None:
    laid_out = small_plan(serving={"extra_args": ["--enable-prefix-caching"]})
    serving, check = laid_out.checks
    assert reconcile(laid_out, given()) == (Submit(laid_out.prepare), Submit(serving))
    assert reconcile(laid_out, given(laid_out.prepare, tasks={serving: RUNNING})) == (Submit(check),)
    assert reconcile(laid_out, given(laid_out.prepare, check, tasks={serving: RUNNING}, slots=9)) == ()


def test_a_failed_check_stops_whatever_runs_and_fails_every_run() -> None:
    laid_out = small_plan(serving={"extra_args": ["--nonsense"]})
    serving, check = laid_out.checks
    observed = given(laid_out.prepare, tasks={serving: FAILED, check: RUNNING})
    assert reconcile(laid_out, observed) == (Delete(check),)
    assert {status.state for status in run_states(laid_out, observed).values()} == {RunState.FAILED}


def test_what_was_finished_before_there_were_checks_stays_finished_and_is_not_repeated() -> None:
    laid_out = small_plan()
    evaluated = [run.evaluate for run in laid_out.runs]
    assert is_finished(laid_out, given(laid_out.prepare, *laid_out.training_order, *evaluated))
    unfinished = given(laid_out.prepare, *laid_out.training_order, *evaluated[1:])
    assert reconcile(laid_out, unfinished) == tuple(Submit(check) for check in laid_out.checks)
    assert run_states(laid_out, unfinished)["base"].state is RunState.PENDING


def test_with_one_slot_one_trainer_starts_and_the_slowest_first() -> None:
    laid_out = small_plan()
    assert reconcile(laid_out, given(*laid_out.preliminaries)) == (Submit(train(laid_out, "fp8")),)


def test_with_two_slots_two_trainers_start() -> None:
    laid_out = small_plan()
    started = reconcile(laid_out, given(*laid_out.preliminaries, slots=2))
    assert started == (Submit(train(laid_out, "fp8")), Submit(train(laid_out, "bf16")))


def test_the_server_takes_the_first_slot_that_no_trainer_waits_for() -> None:
    laid_out = small_plan()
    observed = given(*laid_out.preliminaries, train(laid_out, "fp8"), tasks={train(laid_out, "bf16"): RUNNING}, slots=2)
    assert reconcile(laid_out, observed) == (Submit(laid_out.server),)


def test_with_one_slot_the_server_waits_for_the_last_trainer() -> None:
    laid_out = small_plan()
    last = train(laid_out, "bf16")
    before = given(*laid_out.preliminaries, train(laid_out, "fp8"), tasks={last: RUNNING})
    assert reconcile(laid_out, before) == ()
    after = given(*laid_out.preliminaries, train(laid_out, "fp8"), last, tasks={last: SUCCEEDED})
    assert reconcile(laid_out, after) == (Submit(laid_out.server),)


def test_an_ended_trainer_whose_process_still_goes_down_keeps_its_slot() -> None:
    laid_out = small_plan()
    observed = given(*laid_out.preliminaries, train(laid_out, "fp8"), tasks={train(laid_out, "fp8"): RUNNING})
    assert reconcile(laid_out, observed) == ()


def test_overlapped_serves_before_it_trains_further() -> None:
    laid_out = small_plan(placement="overlapped")
    observed = given(*laid_out.preliminaries, slots=2)
    assert reconcile(laid_out, observed) == (Submit(laid_out.server), Submit(train(laid_out, "fp8")))


def test_overlapped_trains_first_where_nothing_is_there_to_evaluate() -> None:
    laid_out = small_plan(placement="overlapped", evaluation={"evaluate_base": False})
    started = reconcile(laid_out, given(*laid_out.preliminaries, slots=2))
    assert started == (Submit(train(laid_out, "fp8")), Submit(train(laid_out, "bf16")))


@pytest.mark.parametrize(
    ("placement", "slots", "expected"),
    [
        (Placement.PHASED, 8, False),
        (Placement.OVERLAPPED, 1, False),
        (Placement.OVERLAPPED, 2, True),
        (Placement.AUTO, 3, False),
        (Placement.AUTO, 4, True),
    ],
)
def test_overlapping_needs_slots(placement: Placement, slots: int, expected: bool) -> None:
    assert overlaps(placement, slots) is expected


def all_trained(laid_out: Plan) -> tuple[Task, ...]:
    return (*laid_out.preliminaries, *laid_out.training_order)


def test_evaluations_start_when_the_server_is_ready_the_base_first_and_not_too_many() -> None:
    laid_out = small_plan()
    starting = given(*all_trained(laid_out), tasks={laid_out.server: PENDING})
    assert reconcile(laid_out, starting) == ()
    ready = given(*all_trained(laid_out), tasks={laid_out.server: RUNNING})
    assert reconcile(laid_out, ready) == (Submit(evaluate(laid_out, "base")), Submit(evaluate(laid_out, "bf16-s0")))


def test_another_evaluation_starts_when_one_ends() -> None:
    laid_out = small_plan()
    observed = given(
        *all_trained(laid_out),
        evaluate(laid_out, "base"),
        tasks={laid_out.server: RUNNING, evaluate(laid_out, "bf16-s0"): RUNNING},
    )
    assert reconcile(laid_out, observed) == (Submit(evaluate(laid_out, "fp8-s0")),)


def test_the_server_is_deleted_when_nothing_is_left_to_evaluate() -> None:
    laid_out = small_plan()
    done = (*all_trained(laid_out), *(run.evaluate for run in laid_out.runs))
    assert reconcile(laid_out, given(*done, tasks={laid_out.server: RUNNING})) == (Delete(laid_out.server),)
    assert not is_finished(laid_out, given(*done, tasks={laid_out.server: RUNNING}))
    assert is_finished(laid_out, given(*done))


def test_the_server_stays_while_an_evaluation_still_goes_down() -> None:
    laid_out = small_plan()
    done = (*all_trained(laid_out), *(run.evaluate for run in laid_out.runs))
    observed = given(*done, tasks={laid_out.server: RUNNING, evaluate(laid_out, "base"): RUNNING})
    assert reconcile(laid_out, observed) == ()


def test_a_failed_run_does_not_stop_the_others() -> None:
    laid_out = small_plan()
    observed = given(*laid_out.preliminaries, tasks={train(laid_out, "fp8"): FAILED})
    assert reconcile(laid_out, observed) == (Submit(train(laid_out, "bf16")),)
    states = run_states(laid_out, observed)
    assert states["fp8-s0"].state is RunState.FAILED
    assert str(states["fp8-s0"].failure) == "Killed: out of memory"
    assert states["bf16-s0"].state is RunState.PENDING


def test_a_failed_server_fails_what_waits_for_it_and_training_goes_on() -> None:
    laid_out = small_plan()
    base = evaluate(laid_out, "base")
    observed = given(
        *laid_out.preliminaries, train(laid_out, "fp8"), tasks={laid_out.server: FAILED, base: RUNNING}, slots=2
    )
    assert set(reconcile(laid_out, observed)) == {Submit(train(laid_out, "bf16")), Delete(base)}
    after = given(*laid_out.preliminaries, train(laid_out, "fp8"), tasks={laid_out.server: FAILED})
    states = run_states(laid_out, after)
    assert [states[name].state for name in ("base", "fp8-s0", "bf16-s0")] == [
        RunState.FAILED, RunState.FAILED, RunState.PENDING,
    ]  # fmt: skip
    assert "the model server failed" in str(states["base"].failure)


def test_a_server_that_blocks_the_only_slot_and_has_nothing_to_do_gives_way() -> None:
    laid_out = small_plan(evaluation={"evaluate_base": False})
    observed = given(*laid_out.preliminaries, tasks={laid_out.server: RUNNING})
    assert reconcile(laid_out, observed) == (Delete(laid_out.server),)


def test_a_server_beside_a_running_trainer_need_not_give_way() -> None:
    laid_out = small_plan(evaluation={"evaluate_base": False})
    tasks = {laid_out.server: RUNNING, train(laid_out, "fp8"): RUNNING}
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=tasks, slots=2)) == ()


def test_finished_stages_are_never_submitted_again() -> None:
    laid_out = small_plan()
    done = (*laid_out.preliminaries, train(laid_out, "fp8"), evaluate(laid_out, "fp8-s0"))
    actions = reconcile(laid_out, given(*done, slots=9))
    assert not {action.task for action in actions} & set(done)


def test_a_run_that_was_evaluated_is_not_trained_again_though_its_training_results_are_gone() -> None:
    laid_out = small_plan(("bf16",))
    observed = given(*laid_out.preliminaries, evaluate(laid_out, "base"), evaluate(laid_out, "bf16-s0"))
    assert reconcile(laid_out, observed) == ()
    assert is_finished(laid_out, observed)


def test_success_without_a_result_is_a_failure_with_a_reason() -> None:
    laid_out = small_plan()
    observed = given(*laid_out.preliminaries, tasks={train(laid_out, "bf16"): SUCCEEDED})
    failure = failure_of(train(laid_out, "bf16"), observed)
    assert failure is not None
    assert failure.reason == "ResultMissing"
    assert run_states(laid_out, observed)["bf16-s0"].state is RunState.FAILED


def test_a_failure_without_a_reason_still_has_one() -> None:
    laid_out = small_plan()
    failure = failure_of(laid_out.prepare, given(tasks={laid_out.prepare: Observation(phase=Phase.FAILED)}))
    assert str(failure) == "Failed"


@pytest.mark.parametrize("reason", ["UnsupportedRecipeError", "NoCapableNode"])
def test_what_nothing_here_can_run_is_skipped(reason: str) -> None:
    laid_out = small_plan()
    lacking = Observation(phase=Phase.FAILED, reason=reason)
    observed = given(*laid_out.preliminaries, tasks={train(laid_out, "bf16"): lacking})
    assert run_states(laid_out, observed)["bf16-s0"].state is RunState.SKIPPED


def test_run_states_follow_a_run_through_its_life() -> None:
    laid_out = small_plan(("bf16",))
    training, scoring = train(laid_out, "bf16"), evaluate(laid_out, "bf16-s0")
    prepared = laid_out.preliminaries
    steps = [
        (given(), RunState.PENDING),
        (given(*prepared, tasks={training: PENDING}), RunState.TRAINING),
        (given(*prepared, training, tasks={training: RUNNING}), RunState.TRAINED),
        (given(*prepared, training, tasks={scoring: RUNNING}), RunState.EVALUATING),
        (given(*prepared, training, scoring, tasks={scoring: RUNNING}), RunState.SUCCEEDED),
    ]
    assert [run_states(laid_out, observed)["bf16-s0"].state for observed, _ in steps] == [state for _, state in steps]
    assert run_states(laid_out, given(*prepared))["base"].state is RunState.PENDING


UNPLACED = Observation(phase=Phase.PENDING, reason="Unschedulable", unplaced=True)


def test_a_trainer_that_finds_no_room_is_pending() -> None:
    laid_out = small_plan()
    observed = given(*laid_out.preliminaries, tasks={train(laid_out, "bf16"): UNPLACED})
    assert run_states(laid_out, observed)["bf16-s0"].state is RunState.PENDING


def test_an_idle_server_gives_way_to_a_submitted_trainer_that_finds_no_room() -> None:
    laid_out = small_plan(evaluation={"evaluate_base": False})
    tasks = {laid_out.server: RUNNING, train(laid_out, "bf16"): UNPLACED, train(laid_out, "fp8"): UNPLACED}
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=tasks)) == (Delete(laid_out.server),)


def test_a_server_that_evaluates_does_not_give_way() -> None:
    laid_out = small_plan()
    tasks = {laid_out.server: RUNNING, evaluate(laid_out, "base"): RUNNING, train(laid_out, "fp8"): UNPLACED}
    assert reconcile(laid_out, given(*laid_out.preliminaries, train(laid_out, "bf16"), tasks=tasks, slots=1)) == (
        Submit(evaluate(laid_out, "bf16-s0")),
    )


def test_a_server_without_room_stays_while_trainers_work() -> None:
    laid_out = small_plan(evaluation={"evaluate_base": False})
    tasks = {laid_out.server: UNPLACED, train(laid_out, "bf16"): RUNNING, train(laid_out, "fp8"): UNPLACED}
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=tasks)) == ()


def test_trainers_that_wait_for_room_keep_the_server_from_joining_them() -> None:
    laid_out = small_plan(evaluation={"evaluate_base": False})
    tasks = {train(laid_out, "bf16"): RUNNING, train(laid_out, "fp8"): UNPLACED}
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=tasks, slots=1)) == ()


QUEUED = Observation(phase=Phase.PENDING, queued=True)


def test_where_slots_are_not_counted_every_trainer_is_queued_and_the_server_waits() -> None:
    laid_out = small_plan()
    started = reconcile(laid_out, given(*laid_out.preliminaries, slots=None))
    assert started == (Submit(train(laid_out, "fp8")), Submit(train(laid_out, "bf16")))
    tasks = {train(laid_out, "bf16"): QUEUED, train(laid_out, "fp8"): RUNNING}
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=tasks, slots=None)) == ()


def test_where_slots_are_not_counted_the_server_is_queued_once_no_trainer_is() -> None:
    laid_out = small_plan()
    tasks = {train(laid_out, "bf16"): PENDING, train(laid_out, "fp8"): RUNNING}
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=tasks, slots=None)) == (Submit(laid_out.server),)
    over = given(*laid_out.preliminaries, tasks=tasks | {laid_out.server: FAILED}, slots=None)
    assert reconcile(laid_out, over) == ()


def test_a_large_sweep_is_queued_in_parts() -> None:
    laid_out = small_plan(seeds=list(range(100)))
    first = reconcile(laid_out, given(*laid_out.preliminaries, slots=None))
    assert first == tuple(Submit(task) for task in laid_out.training_order[:MAX_QUEUED])
    tasks = dict.fromkeys(laid_out.training_order[:MAX_QUEUED], QUEUED)
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=tasks, slots=None)) == ()
    placed = tasks | dict.fromkeys(laid_out.training_order[:3], RUNNING)
    following = tuple(Submit(task) for task in laid_out.training_order[MAX_QUEUED : MAX_QUEUED + 3])
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=placed, slots=None)) == following


@pytest.mark.parametrize(
    ("placement", "placed", "beside"),
    [("auto", 3, False), ("auto", 4, True), ("overlapped", 1, False), ("overlapped", 2, True), ("phased", 4, False)],
)
def test_where_slots_are_not_counted_those_that_are_held_decide_whether_the_server_overlaps(
    placement: str, placed: int, beside: bool
) -> None:
    laid_out = small_plan(placement=placement, seeds=[0, 1, 2])
    tasks = dict.fromkeys(laid_out.training_order, QUEUED) | dict.fromkeys(laid_out.training_order[:placed], RUNNING)
    started = reconcile(laid_out, given(*laid_out.preliminaries, tasks=tasks, slots=None))
    assert started == ((Submit(laid_out.server),) if beside else ())


def test_where_slots_are_not_counted_an_idle_server_gives_way_to_trainers_without_room() -> None:
    laid_out = small_plan(evaluation={"evaluate_base": False})
    tasks = {laid_out.server: RUNNING, train(laid_out, "bf16"): UNPLACED, train(laid_out, "fp8"): UNPLACED}
    assert reconcile(laid_out, given(*laid_out.preliminaries, tasks=tasks, slots=None)) == (Delete(laid_out.server),)
