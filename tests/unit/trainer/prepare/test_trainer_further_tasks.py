"""The prepare stage publishes the questions of further tasks, and refuses what cannot be scored."""

import errno
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sweeps import MakeSweep
from transformers import PreTrainedTokenizerFast

from surogate_bench.errors import ConfigError
from surogate_bench.results import PrepareResult
from surogate_bench.specs import DataSpec
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.data.records import PreparedRecord, Record, read_prepared, write_records
from surogate_bench_trainer.prepare import prepare_stage
from surogate_bench_trainer.prepare.dataset.sources import load_test


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


GOOD = {"question": "One?", "answer": "#### 1"}
OF_TASK = r"evaluation\.tasks\.en_gsm8k\."


def with_questions(folder: Path, record: dict[str, str], *, count: int = 3, **data: Any) -> dict[str, Any]:
    """A further task on records of a local folder."""
    (folder / "test.jsonl").write_text((json.dumps(record) + "\n") * count)
    return {"name": "en_gsm8k", "data": {"path": str(folder), **data}}


@pytest.mark.parametrize(
    ("record", "data", "why"),
    [
        ({"question": "One?", "answer": "one"}, {}, rf"^{OF_TASK}data\.test:1: .* does not end with '#### N'"),
        ({"question": "One?"}, {}, rf"^{OF_TASK}data\.test:1: .* set {OF_TASK}data\.fields\.answer"),
        ({"text": "One."}, {"fields": {"text": "text"}}, rf"^{OF_TASK}data\.test: .* are texts.* leave data out"),
        (GOOD, {"test_size": 5}, rf"^{OF_TASK}data\.test: has 3 test records, but 5 .* lower {OF_TASK}data\.test_size"),
        (GOOD, {"fields": {"prompt": "p"}}, rf"^{OF_TASK}data\.fields: names fields of prompt-completion records"),
        (
            {"question": "word " * 2000, "answer": "#### 1"},
            {},
            rf"of en_gsm8k and .* tokens together.* lower {OF_TASK}max_gen_toks",
        ),
    ],
)
def test_questions_that_cannot_be_scored_are_refused_by_the_setting_of_their_task(
    make_sweep: MakeSweep, tmp_path: Path, record: dict[str, str], data: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        prepare(make_sweep, tmp_path, with_questions(tmp_path, record, **data))


def test_a_single_question_is_refused_as_a_standard_error_needs_two(make_sweep: MakeSweep, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 1 test records, but 2 are needed"):
        prepare(make_sweep, tmp_path, with_questions(tmp_path, GOOD, count=1))


def test_a_special_token_without_an_embedding_is_refused_in_a_further_task_too(
    make_sweep: MakeSweep, tmp_path: Path, model_folder: Path
) -> None:
    model = shutil.copytree(model_folder, tmp_path / "model")
    larger = PreTrainedTokenizerFast.from_pretrained(model)
    rows = json.loads((model / "config.json").read_text())["vocab_size"]
    larger.add_tokens([f"<new-{number}>" for number in range(rows)], special_tokens=True)
    larger.save_pretrained(model)
    question = {"question": f"<new-{rows - 1}>?", "answer": "#### 1"}
    with pytest.raises(ConfigError, match=rf"more tokens than the model's embedding.*<new-{rows - 1}>"):
        prepare(make_sweep, tmp_path, with_questions(tmp_path, question), model={"path": str(model)})


def test_a_disk_that_is_full_when_questions_are_written_is_named(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, records: Sequence[PreparedRecord]) -> None:
        if path.name.startswith("task-"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_records(path, records)

    monkeypatch.setattr("surogate_bench_trainer.prepare.checking.write_records", write)
    with pytest.raises(ConfigError, match=r"^work-dir: cannot be written: No space left"):
        prepare(make_sweep, tmp_path, with_questions(tmp_path, GOOD))


def test_only_the_test_split_of_a_task_s_data_on_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": [{"messages": 7}], "test": [GOOD] * 3}
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: splits)
    assert load_test(DataSpec(hub="lab/questions")) == [Record(**GOOD)] * 3


def test_the_hub_s_environment_is_checked_once_for_all_tasks(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    monkeypatch.setattr("surogate_bench_trainer.prepare.checking.check_hub_environment", checked.append)
    prepare(make_sweep, tmp_path, with_questions(tmp_path, GOOD), "arc_easy")
    assert len(checked) == 1


def test_a_task_that_does_not_exist_is_refused_before_large_files_are_read(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surogate_bench.stages.local_inputs.digests_of", lambda files: pytest.fail(f"reads {files}"))
    with pytest.raises(ConfigError, match=r"^evaluation\.tasks\.arc_impossible: there is no such task"):
        prepare(make_sweep, tmp_path, "arc_impossible")


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
