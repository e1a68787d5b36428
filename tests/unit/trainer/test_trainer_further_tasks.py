"""The prepare stage publishes the questions of further tasks, and refuses what cannot be scored."""

import json
from pathlib import Path
from typing import Any

import pytest
from sweeps import MakeSweep

from surogate_bench.errors import ConfigError
from surogate_bench.requests import PrepareRequest
from surogate_bench.results import PrepareResult
from surogate_bench.stages import read_manifest
from surogate_bench.store import open_store
from surogate_bench_trainer.data.records import read_prepared
from surogate_bench_trainer.prepare import prepare_stage

DATA = "evaluation.tasks.en_gsm8k.data"


def prepare(make_sweep: MakeSweep, tmp_path: Path, *entries: Any, **changes: Any) -> tuple[PrepareResult, Path]:
    sweep = make_sweep(evaluation={"tasks": ["ro_gsm8k", *entries], "max_gen_toks": 32}, **changes)
    request = PrepareRequest(sweep=sweep, store=str(tmp_path / "store"))
    (tmp_path / "work").mkdir()
    prepare_stage(request, tmp_path / "work")
    manifest = read_manifest(open_store(request.store), request.layout.prepare)
    assert manifest is not None
    return manifest.require_result(PrepareResult), tmp_path / "store" / request.layout.prepare / "data"


def test_questions_of_further_tasks_lie_beside_the_splits(make_sweep: MakeSweep, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "test.jsonl").write_text('{"q": "One?", "answer": "#### 1"}\n' * 3)
    english = {"name": "en_gsm8k", "data": {"builtin": "word-problems-en", "test_size": 7}}
    local = {"name": "word_problem_choice", "data": {"path": str(own), "fields": {"question": "q"}, "test_size": 2}}
    result, data = prepare(make_sweep, tmp_path, english, local, "arc_easy")
    assert {name: info.records for name, info in result.tasks.items()} == {"en_gsm8k": 7, "word_problem_choice": 2}
    assert len(read_prepared(data / "task-en_gsm8k.jsonl")) == 7
    assert json.loads((data / "task-word_problem_choice.jsonl").read_text().splitlines()[0])["question"] == "One?"
    assert result.inputs["task_data"].keys() == {"word_problem_choice/test.jsonl"}
    assert "en_gsm8k/en_gsm8k.yaml" in result.inputs["further_tasks"]
    assert result.of_task("en_gsm8k").data["test"] == result.tasks["en_gsm8k"]
    assert result.of_task("en_gsm8k").inputs["tasks"].keys() == {"en_gsm8k.yaml", "ro_gsm8k.yaml"}


def test_a_sweep_without_further_tasks_records_none(make_sweep: MakeSweep, tmp_path: Path) -> None:
    result, _ = prepare(make_sweep, tmp_path)
    assert "tasks" not in result.model_dump()
    assert result.inputs.keys() <= {"data", "model", "tasks"}


@pytest.mark.parametrize(
    ("record", "test_size", "why", "field"),
    [
        ({"question": "One?", "answer": "one"}, None, "does not end with '#### N'", f"{DATA}:1"),
        ({"question": "One?", "answer": "#### 1"}, 5, "has 3 test records", DATA),
        (
            {"question": "word " * 2000, "answer": "#### 1"},
            None,
            "of en_gsm8k and .* tokens together",
            "serving.max_model_len",
        ),
    ],
)
def test_questions_that_cannot_be_scored_are_refused(
    make_sweep: MakeSweep, tmp_path: Path, record: dict[str, str], test_size: int | None, why: str, field: str
) -> None:
    (tmp_path / "test.jsonl").write_text((json.dumps(record) + "\n") * 3)
    data = {"path": str(tmp_path), "test_size": test_size}
    with pytest.raises(ConfigError, match=why) as caught:
        prepare(make_sweep, tmp_path, {"name": "en_gsm8k", "data": data})
    assert caught.value.field == field


def test_a_further_task_that_does_not_exist_is_refused(make_sweep: MakeSweep, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such task") as caught:
        prepare(make_sweep, tmp_path, "arc_impossible")
    assert caught.value.field == "evaluation.tasks.arc_impossible"


def test_no_room_is_demanded_for_answers_that_are_chosen_and_not_generated(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    generating, choosing = (
        PrepareRequest(
            sweep=make_sweep(name=task.replace("_", "-"), evaluation={"task": task, "max_gen_toks": 900}),
            store=str(tmp_path / "store"),
        )
        for task in ("en_gsm8k", "word_problem_choice")
    )
    with pytest.raises(ConfigError, match="tokens together"):
        prepare_stage(generating, tmp_path / "generating")
    prepare_stage(choosing, tmp_path / "choosing")
    assert read_manifest(open_store(choosing.store), choosing.layout.prepare) is not None


def test_a_prompt_of_multiple_choice_needs_room_for_a_choice(make_sweep: MakeSweep, tmp_path: Path) -> None:
    sweep = make_sweep(serving={"max_model_len": 100}, evaluation={"task": "word_problem_choice"})
    with pytest.raises(ConfigError, match="of word_problem_choice and a choice need") as caught:
        prepare_stage(PrepareRequest(sweep=sweep, store=str(tmp_path / "store")), tmp_path)
    assert "max_gen_toks" not in caught.value.remedy
