"""Evaluations of tasks with data of their own are found again by the records that they scored."""

from pathlib import Path
from typing import Any

import pytest
from worlds.reuse import World

from surogate_bench.results import ScoredData
from surogate_bench.store.object_store import open_store


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(open_store(str(tmp_path / "store")), tmp_path / "scratch")


def own_data(content: str, *, num_fewshot: int = 0) -> ScoredData:
    """What a task that keeps its own data scores."""
    return ScoredData(
        source="openai/gsm8k:main", split="test", records=8, sha256=content, prompt="task", num_fewshot=num_fewshot
    )


@pytest.mark.parametrize(
    ("evaluation", "suffix"),
    [({"task": "gsm8k", "keep_from_task": ["data", "prompt"]}, ""), ({"tasks": ["ro_gsm8k", "gsm8k"]}, "-gsm8k")],
    ids=["primary", "further"],
)
def test_a_task_with_its_own_data_is_not_scored_again_for_another_seed(
    world: World, evaluation: dict[str, Any], suffix: str
) -> None:
    world.prepared = {"inputs": {"model": {"model.safetensors": "0" * 64}}}
    world.own_data = own_data("a")
    world.run(evaluation=evaluation)
    world.run(evaluation=evaluation, seeds=[0, 1])
    assert f"bf16-s1-eval{suffix}" in world.submitted
    assert not [name for name in world.submitted if name.startswith(("base-", "bf16-s0-", "fp8-s0-"))]


@pytest.mark.parametrize("now", [own_data("b"), own_data("a", num_fewshot=5), None], ids=["changed", "shown", "old"])
def test_a_task_with_other_or_unknown_data_of_its_own_is_scored_again(world: World, now: ScoredData | None) -> None:
    evaluation = {"task": "gsm8k", "keep_from_task": ["data", "prompt"]}
    world.prepared = {"inputs": {"model": {"model.safetensors": "0" * 64}}}
    world.own_data = own_data("a", num_fewshot=now.num_fewshot if now else 0)
    world.run(evaluation=evaluation)
    world.own_data = now
    world.run(evaluation=evaluation, seeds=[0, 1])
    assert {"base-eval", "bf16-s0-eval", "fp8-s0-eval"} <= set(world.submitted)
    assert "bf16-s0-train" not in world.submitted
