"""Shapes of records: detected or stated, in any file format, and refused by file, record and field."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from math import nan
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from surogate_bench.errors import ConfigError
from surogate_bench.specs import DataSpec
from surogate_bench_trainer.data.reading import read_records
from surogate_bench_trainer.data.records import Completion, Conversation, Message, ReadRecord, Record, Text
from surogate_bench_trainer.prepare.dataset.repetitions import repetition_warnings
from surogate_bench_trainer.prepare.dataset.sources import load_splits

ASKED = {"role": "user", "content": "q\u2028?"}
ANSWERED = {"role": "assistant", "content": "a"}
TALK = Conversation((Message("user", "q\u2028?"), Message("assistant", "a")))

SHAPES: list[tuple[dict[str, Any], ReadRecord]] = [
    ({"question": "q", "answer": 18}, Record("q", "18")),
    ({"prompt": "p\n", "completion": " c", "id": 1}, Completion("p\n", " c")),
    ({"instruction": "i", "input": "", "output": "o"}, Record("i", "o")),
    ({"instruction": "i", "output": "o"}, Record("i", "o")),
    ({"instruction": "i", "input": None, "output": "o"}, Record("i", "o")),
    ({"instruction": "i", "input": "x", "output": "o", "text": "i x o"}, Record("i\n\nx", "o")),
    ({"text": " whole "}, Text(" whole ")),
    ({"messages": [ASKED, ANSWERED]}, TALK),
    ({"messages": [{"role": "system", "content": ""}, ASKED, ANSWERED], "text": "x"}, TALK),
    ({"conversations": [{"from": "human", "value": "q\u2028?"}, {"from": "gpt", "value": "a"}]}, TALK),
    (
        {"conversations": [{"from": "human", "value": "q\u2028?"}, {"from": "gpt", "value": "a"}], "system": "s"},
        Conversation((Message("system", "s"), *TALK.messages)),
    ),
    ({"messages": [{"role": "system", "content": "s"}, ASKED, ANSWERED], "system": "s", "tools": ""},
     Conversation((Message("system", "s"), *TALK.messages))),
    ({"messages": [ASKED, ANSWERED], "tools": [{"name": "f", "least": 0}], "system": None},
     Conversation(TALK.messages, '[{"name": "f", "least": 0}]')),
    ({"messages": [ASKED, ANSWERED], "tools": [{"name": "f", "of": {"a": 0}}, {"name": "g", "of": {"b": 0.5}}, {}]},
     Conversation(TALK.messages, '[{"name": "f", "of": {"a": 0}}, {"name": "g", "of": {"b": 0.5}}, {}]')),
    ({"messages": [ASKED, ANSWERED], "tools": '[{"name": "f", "least": 0}]'},
     Conversation(TALK.messages, '[{"name": "f", "least": 0}]')),
    ({"messages": [ASKED, ANSWERED | {"reasoning_content": "r", "thinking": None}]},
     Conversation((TALK.messages[0], Message("assistant", "a", (("reasoning_content", "r"),))))),
    ({"messages": [ASKED | {"weight": 0}, ANSWERED | {"weight": 0}, ASKED, ANSWERED | {"weight": 1}]},
     Conversation((Message("user", "q\u2028?", is_learned=False), Message("assistant", "a", is_learned=False),
                   *TALK.messages))),
]  # fmt: skip


def read(folder: Path, *rows: Any, name: str = "train.jsonl", **spec: Any) -> list[ReadRecord]:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_records(path, spec=DataSpec(path=folder, **spec), split="train")


@pytest.mark.parametrize(("row", "record"), SHAPES)
def test_a_shape_is_detected_by_its_fields(tmp_path: Path, row: dict[str, Any], record: ReadRecord) -> None:
    assert read(tmp_path, row, row) == [record, record]


@pytest.mark.parametrize(("row", "record"), SHAPES)
def test_a_shape_is_the_same_from_parquet(tmp_path: Path, row: dict[str, Any], record: ReadRecord) -> None:
    parquet.write_table(pa.Table.from_pylist([row] * 2), tmp_path / "train.parquet")
    assert read_records(tmp_path / "train.parquet", spec=DataSpec(path=tmp_path), split="train") == [record, record]


def test_decimals_of_tools_are_numbers(tmp_path: Path) -> None:
    row = {"messages": [ASKED, ANSWERED], "tools": [{"name": "f", "least": Decimal("0.5")}]}
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "train.parquet")
    (record,) = read_records(tmp_path / "train.parquet", spec=DataSpec(path=tmp_path), split="train")
    assert record == Conversation(TALK.messages, '[{"name": "f", "least": 0.5}]')


def test_a_stated_shape_is_not_detected(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "text": "whole"}
    assert read(tmp_path, row) == [Record("q", "a")]
    assert read(tmp_path, row, format="text") == [Text("whole")]


@pytest.mark.parametrize(
    ("row", "fields", "record"),
    [
        ({"q": "x", "a": "y", "text": "z"}, {"question": "q", "answer": "a"}, Record("x", "y")),
        ({"task": "x", "reply": "y"}, {"instruction": "task", "output": "reply"}, Record("x", "y")),
        ({"body": "x"}, {"text": "body"}, Text("x")),
        (
            {"chat": [{"who": "user", "said": "q\u2028?"}, {"who": "assistant", "said": "a"}]},
            {"messages": "chat", "role": "who", "content": "said"},
            TALK,
        ),
        ({"question": "x", "answer": "y", "talk": [ASKED, ANSWERED]}, {"messages": "talk"}, TALK),
        ({"question": "x", "answer": "y", "messages": [ASKED, ANSWERED]}, {"messages": "messages"}, TALK),
        ({"question": "x", "answer": "y"}, {"prompt": "question", "completion": "answer"}, Completion("x", "y")),
    ],
)
def test_fields_may_have_other_names(
    tmp_path: Path, row: dict[str, Any], fields: dict[str, str], record: ReadRecord
) -> None:
    assert read(tmp_path, row, fields=fields) == [record]


@pytest.mark.parametrize(
    ("good", "bad", "message", "setting"),
    [
        (
            {"prompt": "p", "completion": "c"},
            {"prompt": "p", "completion": None},
            "no text in its field 'completion'",
            "data.fields.completion",
        ),
        ({"text": "t"}, {"text": ["t"]}, "no text in its field 'text' (found a list)", "data.fields.text"),
        (
            {"instruction": "i", "output": "o"},
            {"instruction": "i", "input": {}, "output": "o"},
            "'input' (found an object",
            "data.fields.input",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": "q"},
            "no list of messages in its field 'messages' (found text)",
            "data.fields.messages",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": None},
            "no list of messages in its field 'messages'; it has messages",
            "data.fields.messages",
        ),
        ({"messages": [ASKED, ANSWERED]}, {"messages": [ASKED]}, "no message of the assistant", "Remove the record"),
        ({"messages": [ASKED, ANSWERED]}, {"messages": []}, "no message of the assistant", "Remove the record"),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, {"role": "assistant", "content": " "}]},
            "no text in 'content' of message 2",
            "data.fields.content",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [{"role": "narrator", "content": "x"}]},
            "no known role in 'role' of message 1",
            "data.fields.role",
        ),
        ({"messages": [ASKED, ANSWERED]}, {"messages": ["hi"]}, "text as message 1, not an object", '"role": "user"'),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [{}]}]},
            "calls tools in message 2",
            "Remove the record",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, {"role": "assistant", "content": "a", "function_call": {"name": "f"}}]},
            "calls tools in message 2",
            "Remove the record",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, {"role": "assistant", "content": "\ud83d"}]},
            "a lone surrogate",
            "not valid Unicode",
        ),
        ({"text": "t"}, "t", "must be an object, not text", '{"text": ...}'),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, ANSWERED | {"weight": 0.5}]},
            "a weight in message 2 that is neither 0 nor 1",
            "Write 0",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, ANSWERED | {"weight": 0}]},
            "gives every message of the assistant weight 0",
            "give one weight 1",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED | {"reasoning_content": "r"}, ANSWERED]},
            "the reasoning of user in 'reasoning_content' of message 1",
            "Correct or remove it",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, ANSWERED | {"reasoning": ["r"]}]},
            "no text in 'reasoning' of message 2",
            "Correct or remove it",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [{"role": "system", "content": "s"}, ASKED, ANSWERED], "system": "t"},
            "a system message in its field 'system' and another one",
            "Remove one",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, ANSWERED], "system": ["t"]},
            "no text in its field 'system' (found a list)",
            "Correct the record",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, ANSWERED], "tools": "f(x)"},
            "text in its field 'tools' that is not JSON",
            "remove the field",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, ANSWERED], "tools": "[" * 100_000},
            "text in its field 'tools' that is not JSON",
            "remove the field",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, ANSWERED], "tools": {"name": "f"}},
            "no list of tools in its field 'tools' (found an object)",
            "remove the field",
        ),
        (
            {"messages": [ASKED, ANSWERED]},
            {"messages": [ASKED, ANSWERED], "tools": 0},
            "no list of tools in its field 'tools' (found a number)",
            "remove the field",
        ),
        (
            {"messages": [ASKED, ANSWERED], "tools": []},
            {"messages": [ASKED, ANSWERED], "tools": False},
            "no list of tools in its field 'tools' (found a Boolean)",
            "remove the field",
        ),
        (
            {"messages": [ASKED, ANSWERED], "tools": "null"},
            {"messages": [ASKED, ANSWERED], "tools": '[{"name": "f", "least": NaN}]'},
            "a value in its field 'tools' that cannot be written as JSON: Out of range float",
            "finite numbers",
        ),
        (
            {"messages": [ASKED, ANSWERED], "tools": [{"name": "ă"}]},
            {"messages": [ASKED, ANSWERED], "tools": [{"name": "\ud800"}]},
            "a lone surrogate, '\\ud800', in its field 'tools'",
            "Correct the character",
        ),
    ],
)
def test_a_bad_record_is_named_with_file_record_and_remedy(
    tmp_path: Path, good: Any, bad: Any, message: str, setting: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, good, bad)
    assert caught.value.field == "data.train:2"
    assert f"line 2 of {tmp_path / 'train.jsonl'}" in str(caught.value)
    assert message in str(caught.value)
    assert setting in caught.value.remedy
    assert len(str(caught.value)) < 600 + 2 * len(str(tmp_path))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (date(2024, 2, 29), "Object of type date"),
        (datetime(2024, 2, 29, tzinfo=UTC), "Object of type datetime"),
        (b"f", "Object of type bytes"),
        (nan, "Out of range float values"),
    ],
    ids=["date", "timestamp", "bytes", "nan"],
)
def test_a_value_of_parquet_that_json_does_not_have_is_named_with_its_record(
    tmp_path: Path, value: object, problem: str
) -> None:
    rows = [{"messages": [ASKED, ANSWERED], "tools": [{"name": "f", "least": each}]} for each in (None, value)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(ConfigError, match=rf"record 2 of .*train\.parquet .*'tools' .*as JSON: {problem}") as caught:
        read_records(tmp_path / "train.parquet", spec=DataSpec(path=tmp_path), split="train")
    assert caught.value.field == "data.train:2"


def test_a_last_message_of_weight_0_is_refused_where_only_the_last_counts(tmp_path: Path) -> None:
    row = {"messages": [ASKED, ANSWERED, ASKED, ANSWERED | {"weight": 0}]}
    with pytest.raises(ConfigError, match=r"data\.train:1: .*gives the last message of the assistant weight 0"):
        read(tmp_path, row, loss_on="last")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hub": "a/b", "files": {"train": "x.jsonl"}}, "set path as well"),
        ({"path": "x", "splits": {"train": "t"}}, "set hub as well"),
        ({"path": "x", "hold_out": {"test": 2.5}}, "whole number of records"),
        ({"path": "x", "hold_out": {"test": 1.0}}, r"at least 2\), not 1"),
        ({"path": "x", "hold_out": {"test": True}}, "cannot be true or false"),
        ({"path": "x", "hold_out": {"test": 0.6, "validation": 0.4}}, "leave none to train on"),
        ({"hub": "a/b", "splits": {"train": "x", "test": "x"}}, "x would be read as two splits"),
        ({"hub": "a/b", "splits": {"train": "test"}}, "test would be read as two splits"),
        (
            {"path": "x", "question_field": "a", "fields": {"question": "b"}},
            "question_field and fields.question differ",
        ),
        ({"path": "x", "chat_template_arguments": {"tokenize": True}}, "remove tokenize"),
        ({"path": "x", "prompt": "{context} {question}"}, r"prompt has \{context\}.*only \{question\} is replaced"),
        ({"path": "x", "prompt": "{question} {answer}"}, r"prompt has \{answer\}"),
        ({"path": "x", "completion": "{answer}{eos}"}, r"completion has \{eos\}.*only \{answer\} is replaced"),
        ({"path": "x", "fields": {"answr_text": "a"}}, "Extra inputs"),
        ({"path": "x", "config": "main"}, "config only applies to hub: remove it"),
        ({"path": "x", "revision": "main"}, "revision only applies to hub: remove it"),
        (
            {"path": "x", "fields": {"prompt": "x", "completion": "x"}},
            "prompt and completion would both be read from the field x",
        ),
        (
            {"path": "x", "fields": {"instruction": "x", "output": "x"}},
            "instruction and output would both be read from the field x",
        ),
        (
            {"path": "x", "fields": {"role": "x", "content": "x"}},
            "content and role would both be read from the field x",
        ),
        (
            {"path": "x", "fields": {"question": "answer"}},
            "question and answer would both be read from the field answer",
        ),
        ({"path": "x", "answer_field": "question"}, "question and answer would both be read from the field question"),
        (
            {"builtin": "word-problems-ro", "train_size": 1, "test_size": 1, "shuffle": True, "format": "text"},
            "remove format, shuffle",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSpec.model_validate(changes)


def test_training_and_test_records_of_different_shapes_may_share_the_name_of_a_field(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"input": "Say 1.", "output": "1"}\n' * 2)
    (tmp_path / "test.jsonl").write_text('{"input": "1?", "label": "#### 1"}\n')
    fields = {"prompt": "input", "completion": "output", "question": "input", "answer": "label"}
    splits = load_splits(DataSpec.model_validate({"path": tmp_path, "fields": fields, "validation_size": 1}))
    assert splits["train"] == [Completion("Say 1.", "1")]
    assert splits["test"] == [Record("1?", "#### 1")]


def test_a_message_may_have_a_field_of_the_name_of_the_list(tmp_path: Path) -> None:
    assert read(tmp_path, {"content": [ASKED, ANSWERED]}, fields={"messages": "content"}) == [TALK]


@pytest.mark.parametrize("kind", ["text", "date"])
def test_parquet_values_that_cannot_be_read_are_refused_with_their_file(tmp_path: Path, kind: str) -> None:
    values = {
        "text": pa.array([b"\xff\xfe"], pa.binary()).view(pa.string()),
        "date": pa.array([2**40], pa.timestamp("s")),
    }
    table = pa.table({"question": values[kind], "answer": pa.array(["#### 1"])})
    parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(ConfigError, match=r"train\.parquet"):
        load_splits(DataSpec(path=tmp_path), needs_test=False)


def test_questions_of_conversations_are_all_that_the_user_says_or_one_message_for_a_question() -> None:
    def talk(*questions: str) -> Conversation:
        said = [(Message("user", question), Message("assistant", "a")) for question in questions]
        return Conversation(tuple(message for pair in said for message in pair))

    splits = {
        "train": [talk("hello", "q1"), talk("hello", "q2")],
        "validation": [talk("hello", "q3"), talk("hello")],
        "test": [Record("q2", "#### 1"), Record("q3", "#### 2")],
    }
    assert repetition_warnings(splits) == [
        "1 of 2 test questions is in the training split too, so accuracies may reflect memorized answers.",
        "1 of 2 validation questions is in the training split too, so the validation loss is not measured on unseen "
        "questions only.",
    ]
