"""Splits of a data set: the files or splits of the hub that they are read from, and what is held out."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from surogate_bench.errors import ConfigError
from surogate_bench.specs import DataSpec
from surogate_bench_trainer.data.records import Completion, Conversation, Message, Record
from surogate_bench_trainer.prepare.dataset.sources import load_splits

ASKED = {"role": "user", "content": "q\u2028?"}
ANSWERED = {"role": "assistant", "content": "a"}
TALK = Conversation((Message("user", "q\u2028?"), Message("assistant", "a")))


def write(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"q{number}", "answer": f"#### {number}"} for number in range(first, first + count)]


def test_several_files_are_read_in_the_order_of_patterns_and_names(tmp_path: Path) -> None:
    write(tmp_path / "chat/part-1.jsonl", *rows(2, 2))
    write(tmp_path / "chat/part-0.jsonl.gz", *rows(2))
    write(tmp_path / "more.json", *rows(2, 4))
    write(tmp_path / "test.jsonl", *rows(1, 9))
    (tmp_path / "chat/README.md").write_text("not data", encoding="utf-8")
    spec = DataSpec(path=tmp_path, files={"train": ["chat/*", "more.json", "chat/part-0*"]}, validation_size=1)
    splits = load_splits(spec)
    assert [record.question for record in splits["train"] + splits["validation"]] == [f"q{n}" for n in range(6)]


def test_a_bad_record_of_one_of_several_files_is_named_by_its_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *rows(3))
    write(tmp_path / "b.jsonl", *rows(1), {"question": "q"})
    write(tmp_path / "test.jsonl", *rows(1))
    with pytest.raises(ConfigError, match=r"line 2 of .*/b\.jsonl has no text in its field 'answer'"):
        load_splits(DataSpec(path=tmp_path, files={"train": "[ab].jsonl"}))


def test_a_pattern_without_a_file_is_refused_with_what_there_is(tmp_path: Path) -> None:
    write(tmp_path / "data.jsonl", *rows(3))
    with pytest.raises(
        ConfigError, match=r"data\.files\.train: matches no .* \(got 'dta\.jsonl'\).*The folder has data\.jsonl"
    ):
        load_splits(DataSpec(path=tmp_path, files={"train": "dta.jsonl"}))


@pytest.mark.parametrize("pattern", ["../other.jsonl", "a/../../b.jsonl", "/etc/passwd", "a\\b", ""])
def test_files_outside_the_folder_are_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        DataSpec(path=Path("data"), files={"train": pattern})


def test_a_single_file_is_split(tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", *rows(100))
    spec = DataSpec(path=tmp_path / "all.jsonl", hold_out={"validation": 0.1, "test": 20}, seed=3)
    splits = load_splits(spec)
    numbers = {name: [int(record.question[1:]) for record in split] for name, split in splits.items()}
    assert {name: len(split) for name, split in numbers.items()} == {"train": 70, "validation": 10, "test": 20}
    assert sorted(number for split in numbers.values() for number in split) == list(range(100))
    assert all(split == sorted(split) for split in numbers.values())
    assert numbers["test"] != list(range(80, 100))
    assert load_splits(spec) == splits
    assert load_splits(spec.model_copy(update={"seed": 4})) != splits
    with pytest.raises(ConfigError, match=r"single file, so there is no test split.*data\.hold_out\.test"):
        load_splits(DataSpec(path=tmp_path / "all.jsonl"))


def test_training_records_are_shuffled_by_the_seed_before_sizes_apply(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *rows(50))
    write(tmp_path / "test.jsonl", *rows(5, 90))
    spec = DataSpec(path=tmp_path, shuffle=True, validation_size=10, train_size=5)
    splits = load_splits(spec)
    first = [record.question for record in splits["train"]]
    assert len(first) == 5
    assert first != [f"q{number}" for number in range(5)]
    assert [record.question for record in splits["test"]] == [f"q{number}" for number in range(90, 95)]
    assert load_splits(spec) == splits


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ({"test": 3}, r"data\.hold_out\.test: the data set has a test split of its own"),
        (
            {"validation": 50},
            r"data\.hold_out\.validation: takes 50 of 50 training records: none would remain.*than 50 records",
        ),
        (
            {"validation": 0.001},
            r"data\.hold_out\.validation: is less than one of 50 training records: validation would be empty.*Raise it",
        ),
    ],
)
def test_records_that_cannot_be_held_out_are_refused(tmp_path: Path, held_out: dict[str, float], message: str) -> None:
    write(tmp_path / "train.jsonl", *rows(50))
    write(tmp_path / "test.jsonl", *rows(5))
    with pytest.raises(ConfigError, match=message):
        load_splits(DataSpec(path=tmp_path, hold_out=held_out))


def test_what_a_second_split_leaves_empty_is_named_with_what_was_left(tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", *rows(10))
    spec = DataSpec(path=tmp_path / "all.jsonl", hold_out={"validation": 4, "test": 6})
    with pytest.raises(ConfigError, match=r"hold_out\.test: takes 6 of the 6 training records that are left: none"):
        load_splits(spec)
    with pytest.raises(ConfigError, match=r"validation_size: .*there are 6 training records besides those held out"):
        load_splits(DataSpec(path=tmp_path / "all.jsonl", hold_out={"test": 4}))
    write(tmp_path / "two.jsonl", *rows(2))
    with pytest.raises(ConfigError, match=r"takes 2 of 2 training records: .*\(got 2\)\. Give more records"):
        load_splits(DataSpec(path=tmp_path / "two.jsonl", hold_out={"test": 2}))


def test_a_file_whose_name_is_also_a_pattern_is_found(tmp_path: Path) -> None:
    write(tmp_path / "train[1].jsonl", *rows(3))
    write(tmp_path / "train1.jsonl", *rows(3, 50))
    files = {"train": "train[1].jsonl"}
    spec = DataSpec(path=tmp_path, files=files, validation_size=1)
    assert [record.question for record in load_splits(spec, needs_test=False)["train"]] == ["q0", "q1"]
    (tmp_path / "train[1].jsonl").unlink()
    assert [record.question for record in load_splits(spec, needs_test=False)["train"]] == ["q50", "q51"]


def test_test_records_without_answers_are_refused_unless_the_task_has_its_own(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *[{"text": f"t{number}"} for number in range(20)])
    write(tmp_path / "test.jsonl", {"text": "t"})
    spec = DataSpec(path=tmp_path, validation_size=2)
    with pytest.raises(ConfigError, match=r"data\.test: the test records are texts, and the task scores an answer"):
        load_splits(spec)
    assert set(load_splits(spec, needs_test=False)) == {"train", "validation"}
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(ConfigError, match="has no test file"):
        load_splits(spec)
    assert set(load_splits(spec, needs_test=False)) == {"train", "validation"}


def test_test_records_have_a_shape_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *[{"messages": [ASKED, ANSWERED]}] * 5)
    write(tmp_path / "test.jsonl", *rows(2))
    splits = load_splits(DataSpec(path=tmp_path, validation_size=2, format="messages"))
    assert splits["train"] == [TALK] * 3
    assert splits["test"] == [Record("q0", "#### 0"), Record("q1", "#### 1")]


def test_test_records_have_a_shape_of_their_own_beside_stated_prompts(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *[{"prompt": "p", "completion": "c"}] * 5)
    write(tmp_path / "test.jsonl", *rows(2))
    spec = DataSpec(path=tmp_path, validation_size=2, format="prompt-completion")
    assert load_splits(spec)["test"] == [Record("q0", "#### 0"), Record("q1", "#### 1")]
    write(tmp_path / "test.jsonl", *[row | {"prompt": "p", "completion": "c"} for row in rows(2)])
    assert load_splits(spec)["test"] == [Completion("p", "c")] * 2
    write(tmp_path / "test.jsonl", {"q": "x", "a": "y"})
    with pytest.raises(ConfigError, match=r"no text in its field 'question'; it has q, a\b.*set data\.question_field"):
        load_splits(spec)


def test_validation_records_of_another_shape_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *[{"text": "t"}] * 5)
    write(tmp_path / "validation.jsonl", *rows(2))
    with pytest.raises(ConfigError, match=r"data\.validation: .*another shape"):
        load_splits(DataSpec(path=tmp_path), needs_test=False)


def test_splits_of_the_hub_may_have_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = {"train_sft": [{"messages": [ASKED, ANSWERED]}] * 5, "test_sft": rows(2)}
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: loaded)
    named = {"train": "train_sft", "test": "test_sft"}
    splits = load_splits(DataSpec(hub="a/b", splits=named, validation_size=1))
    assert {name: len(split) for name, split in splits.items()} == {"train": 4, "validation": 1, "test": 2}
    with pytest.raises(ConfigError, match=r"data\.splits\.test: .*no such split.*'eval'.*train_sft, test_sft"):
        load_splits(DataSpec(hub="a/b", splits={"train": "train_sft", "test": "eval"}))


def test_a_name_for_a_field_that_no_split_has_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *rows(5))
    write(tmp_path / "test.jsonl", *rows(2))
    spec = DataSpec(path=tmp_path, validation_size=1, fields={"messages": "talk"})
    with pytest.raises(
        ConfigError, match=r"data\.fields: names fields of messages records, and no split has such.*talk"
    ):
        load_splits(spec)
    write(tmp_path / "train.jsonl", *[{"talk": [ASKED, ANSWERED]}] * 5)
    assert load_splits(spec)["train"] == [TALK] * 4


@pytest.mark.parametrize("pattern", ["**x.jsonl", ".", "x" * 5000])
def test_what_is_no_pattern_of_files_is_refused_by_name(tmp_path: Path, pattern: str) -> None:
    write(tmp_path / "train.jsonl", *rows(3))
    with pytest.raises(ConfigError, match=r"^data\.files\.train: "):
        load_splits(DataSpec(path=tmp_path, files={"train": pattern}), needs_test=False)


@pytest.mark.parametrize("files", [{"train": "*.jsonl"}, {"test": "train.jsonl"}])
def test_a_file_in_two_splits_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    for name in ("train", "test"):
        write(tmp_path / f"{name}.jsonl", *rows(3))
    with pytest.raises(ConfigError, match=r"data\.files\.test: is in the train split and in the test split"):
        load_splits(DataSpec(path=tmp_path, files=files))


def test_listed_files_beside_a_single_file_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", *rows(5))
    listed = {"test": "t.jsonl"}
    with pytest.raises(ConfigError, match=r"data\.files: has no effect"):
        load_splits(DataSpec(path=tmp_path / "one.jsonl", files=listed, hold_out={"test": 2}))
