"""Laying a sweep out as tasks."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import small_sweep

from surogate_bench.contract import Service
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.requests import CheckRequest
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.tasks import MAX_NAME, task_name

STORE = "file:///results"


def sweep(**changes: Any) -> RecipeSweep:
    return small_sweep(**{"recipes": ["bf16", "fp4", "fp8"], "seeds": [0, 7]} | changes)


def test_every_recipe_and_seed_is_a_run_and_the_base_comes_first() -> None:
    laid_out = plan(sweep(), STORE)
    assert [run.name for run in laid_out.runs] == [
        "base", "bf16-s0", "bf16-s7", "fp4-s0", "fp4-s7", "fp8-s0", "fp8-s7",
    ]  # fmt: skip
    assert laid_out.runs[0].train is None
    assert {run.evaluate.service for run in laid_out.runs} == {Service.EVALUATOR}


def test_the_base_is_left_out_where_it_is_not_requested() -> None:
    laid_out = plan(sweep(evaluation={"evaluate_base": False}), STORE)
    assert "base" not in [run.name for run in laid_out.runs]


def test_the_slowest_recipes_train_first() -> None:
    order = [task.name for task in plan(sweep(), STORE).training_order]
    assert ["fp4" in name for name in order] == [True, True, False, False, False, False]
    assert ["bf16" in name for name in order] == [False, False, False, False, True, True]


def test_trainers_and_the_server_hold_a_slot_and_nothing_else_does() -> None:
    laid_out = plan(sweep(), STORE)
    assert {task.slots for task in laid_out.training_order} == {1}
    assert laid_out.server.slots == 1
    assert laid_out.prepare.slots == 0
    assert {run.evaluate.slots for run in laid_out.runs} == {0}


def test_every_task_but_the_server_has_an_output_of_its_own() -> None:
    laid_out = plan(sweep(), STORE)
    outputs = [task.output for task in laid_out.tasks if not task.is_server]
    assert len(set(outputs)) == len(outputs) == 1 + 1 + 6 + 7
    assert laid_out.server.is_server
    assert f"sweeps/small/{laid_out.sweep.spec_hash}/runs/fp4-s7/train" in outputs


def test_the_task_is_always_checked_and_the_server_where_it_gets_arguments_of_the_users() -> None:
    subjects = {(): ["task"], ("--enable-prefix-caching",): ["serving", "task"]}
    for extra, expected in subjects.items():
        checks = plan(sweep(serving={"extra_args": extra}), STORE).checks
        assert [check.request.subject for check in checks if isinstance(check.request, CheckRequest)] == expected
        assert {check.slots for check in checks} == {0}


def test_limits_come_from_the_sweep() -> None:
    laid_out = plan(sweep(max_attempts=5, train_timeout_s=12, evaluation={"timeout_s": 34}), STORE)
    assert laid_out.training_order[0].timeout_s == 12
    assert laid_out.runs[0].evaluate.timeout_s > 34
    assert laid_out.server.timeout_s > laid_out.sweep.serving.start_timeout_s
    assert {task.max_attempts for task in laid_out.tasks} == {5}


def names(laid_out: Plan) -> list[str]:
    return [task.name for task in laid_out.tasks]


def test_names_are_the_same_every_time_and_differ_between_specs_and_stores() -> None:
    assert names(plan(sweep(), STORE)) == names(plan(sweep(), STORE))
    others = plan(sweep(max_attempts=9), STORE), plan(sweep(), "s3://bucket")
    for other in others:
        assert not set(names(plan(sweep(), STORE))) & set(names(other))


def test_names_of_a_sweep_with_the_longest_names_are_distinct_labels() -> None:
    recipe = {"title": "x", "weight_storage": "bf16", "compute": "bf16"}
    twins = [recipe | {"name": "r" * 39 + last} for last in "ab"]
    laid_out = plan(sweep(name="s" * 40, recipes=twins, seeds=[0, 123456789]), STORE)
    assert len(set(names(laid_out))) == len(laid_out.tasks)
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) for name in names(laid_out))


@given(parts=st.lists(st.from_regex(r"[a-z0-9][a-z0-9-]{0,38}[a-z0-9]", fullmatch=True), min_size=1, max_size=3))
def test_a_task_name_is_a_dns_label(parts: list[str]) -> None:
    name = task_name(*parts, identity="x")
    assert len(name) <= MAX_NAME
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)


@pytest.mark.parametrize("parts", [("ab", "c"), ("a", "bc")])
def test_a_short_name_starts_with_its_parts(parts: tuple[str, ...]) -> None:
    assert task_name(*parts, identity="x").startswith("-".join(parts) + "-")
