"""Data files as people have them: read where the meaning is plain, else refused with file, line and remedy."""

import csv
import errno
import gzip
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets.exceptions import DatasetGenerationError
from pyarrow import parquet

from surogate_bench.errors import ConfigError
from surogate_bench.specs import DataSpec
from surogate_bench_trainer.data.reading import read_records
from surogate_bench_trainer.data.records import Record, read_prepared, write_records
from surogate_bench_trainer.prepare.dataset.sources import load_splits

SPEC = DataSpec(path=Path("unused"))
ROWS = [
    {"id": 1, "question": "Câte mere?\nDouă?", "answer": 'zice "18", gata\n#### 18'},
    {"id": None, "question": "\u2028\u0085\x0b\x1c\u00a0ok", "answer": "#### 5"},
]
RECORDS = [Record(row["question"], row["answer"]) for row in ROWS]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def read(folder: Path, name: str, data: bytes | str) -> list[Record]:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_records(path, spec=SPEC, split="train")


def refused(folder: Path, name: str, data: bytes | str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, name, data)
    assert caught.value.remedy
    assert len(str(caught.value)) < 600 + 2 * len(str(folder)), "the value is shortened"
    return caught.value


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("train.jsonl", as_jsonl),
        ("train.jsonl", as_json),
        ("train.json", as_json),
        ("train.json", as_jsonl),
        ("train.csv", as_csv),
        ("train.parquet", as_parquet),
    ],
)
def test_every_format_gives_the_same_records(
    tmp_path: Path, name: str, write: Callable[[list[dict[str, Any]]], bytes], compressed: bool
) -> None:
    data = write(ROWS)
    assert read(tmp_path, f"{name}.gz" if compressed else name, gzip.compress(data) if compressed else data) == RECORDS


@pytest.mark.parametrize("write", [as_jsonl, as_json, as_csv])
def test_a_byte_order_mark_is_read(tmp_path: Path, write: Callable[[list[dict[str, Any]]], bytes]) -> None:
    name = "train.csv" if write is as_csv else "train.jsonl"
    assert read(tmp_path, name, b"\xef\xbb\xbf" + write(ROWS)) == RECORDS


def test_a_csv_value_of_any_length_is_read(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "long " * 100_000}]
    assert read(tmp_path, "train.csv", as_csv(rows)) == [Record("q", rows[0]["answer"])]


def test_files_with_byte_order_marks_may_have_been_joined(tmp_path: Path) -> None:
    assert read(tmp_path, "train.jsonl", (b"\xef\xbb\xbf" + as_jsonl(ROWS)) * 2) == RECORDS * 2


def test_line_ends_of_windows_and_blank_lines_are_read(tmp_path: Path) -> None:
    data = b"\r\n \r\n".join(as_jsonl(ROWS).split(b"\n"))
    assert read(tmp_path, "train.jsonl", data) == RECORDS
    spreadsheet = b"question,answer\r\n\r\nq,#### 1\r\n\r\nr,#### 2\r\n"
    assert read(tmp_path, "train.csv", spreadsheet) == [Record("q", "#### 1"), Record("r", "#### 2")]


def test_line_breaks_in_values_of_a_csv_file_are_those_of_windows_only_if_others_are_not(tmp_path: Path) -> None:
    converted = b'question,answer\r\nq,"5\r\n#### 5"\r\n'
    assert read(tmp_path, "train.csv", converted) == [Record("q", "5\n#### 5")]
    as_written = b'question,answer\nq,"5\r\n#### 5"\n'
    assert read(tmp_path, "train.csv", as_written) == [Record("q", "5\r\n#### 5")]


def test_what_was_read_is_the_same_after_it_was_prepared(tmp_path: Path) -> None:
    write_records(tmp_path / "prepared.jsonl", RECORDS)
    assert read_prepared(tmp_path / "prepared.jsonl") == RECORDS


@pytest.mark.parametrize(
    ("written", "text"),
    [("18", "18"), ("1e3", "1e3"), ("18.50", "18.50"), ("-7", "-7"), ("true", "true")],
)
def test_a_number_is_read_as_the_text_it_is_written_as(tmp_path: Path, written: str, text: str) -> None:
    line = f'{{"question": {written}, "answer": {written}, "id": {written}, "note": null, "loss": NaN}}'
    assert read(tmp_path, "train.jsonl", line) == [Record(text, text)]


def test_a_number_of_any_length_is_read(tmp_path: Path) -> None:
    digits = "9" * 5000
    assert read(tmp_path, "train.jsonl", f'{{"question": "q", "answer": {digits}}}') == [Record("q", digits)]


def test_numbers_of_a_parquet_file_are_read_as_text(tmp_path: Path) -> None:
    rows = [{"question": 18, "answer": Decimal("18.50")}]
    assert read(tmp_path, "train.parquet", as_parquet(rows)) == [Record("18", "18.50")]


GOOD = '{"question": "q", "answer": "a"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "x", "answer": "\\ud83d"}', "a lone surrogate, '\\ud83d', in its field"),
        ('{"question": "x", "answer": "y", "answer": "z"}', "has the key 'answer' twice"),
        ('{"question": "x", "reply": "y"}', "no text in its field 'answer'; it has question, reply"),
        ('{"question": "x", "\\ud83d": "y"}', "it has question, \\ud83d"),
        ('{"question": null, "answer": "y"}', "no text in its field 'question'"),
        ('{"question": "x", "answer": NaN}', "no text in its field 'answer'"),
        ('{"question": "x", "answer": ["y"]}', "no text in its field 'answer' (found a list)"),
        ('{"question": "x", "answer": {"text": "y"}}', "no text in its field 'answer' (found an object)"),
        ('{"question": "x", "answer": "y"} {}', "text follows the object"),
        ('{"question": "x", "answer": ', "is not JSON: Expecting value"),
        pytest.param("[" * 100_000, "is nested too deeply", id="deep-array"),
        pytest.param('{"a":' * 100_000, "is nested too deeply", id="deep-object"),
        ("null", "must be an object, not null"),
        ('"text"', "must be an object, not text"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, message: str) -> None:
    error = refused(tmp_path, "train.jsonl", f"{GOOD}\n\n{line}\n{GOOD}\n")
    assert error.field == "data.train:3"
    assert f"line 3 of {tmp_path / 'train.jsonl'}" in str(error)
    assert message in str(error)
    str(error).encode()  # it can be printed


@pytest.mark.parametrize(
    ("element", "message"),
    [
        ('{"question": "x"}', "no text in its field 'answer'"),
        ('{"question": "x" "answer": "y"}', "is not JSON: Expecting ',' delimiter (line 3)"),
        ('{"question": "x", "question": "y"}', "has the key 'question' twice"),
        pytest.param("[" * 100_000, "is nested too deeply", id="deep-array"),
        (GOOD + "\n" + GOOD, "is not followed by ',' or ']'"),
    ],
)
def test_a_bad_record_of_an_array_is_named_by_its_number(tmp_path: Path, element: str, message: str) -> None:
    error = refused(tmp_path, "train.json", f"[\n{GOOD},\n{element},\n{GOOD}]")
    assert error.field == "data.train:2"
    assert f"record 2 of {tmp_path / 'train.json'}" in str(error)
    assert message in str(error)


@pytest.mark.parametrize(
    ("data", "message"), [(f"[{GOOD},]", "record 2"), (f"[{GOOD}]\n{GOOD}", "text follows the array")]
)
def test_text_after_an_array_is_refused(tmp_path: Path, data: str, message: str) -> None:
    assert message in str(refused(tmp_path, "train.json", data))


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        ("train.jsonl", as_jsonl(ROWS).decode().encode("utf-16"), ["appears to be UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        ("train.jsonl", as_jsonl(ROWS).decode().encode("utf-16-le"), ["appears to be UTF-16"]),
        ("train.csv", "question,answer\nq,#### 1\n".encode("utf-16"), ["appears to be UTF-16"]),
        ("train.jsonl", as_jsonl(ROWS).decode().encode("utf-32"), ["appears to be UTF-32", "iconv -f UTF-32 -t UTF-8"]),
        ("train.json", json.dumps({"data": ROWS}, indent=1).encode(), ["line 1 of", "does not end it", "as one array"]),
        ("train.jsonl", b'{}\n{"question": "\xe3"}', ["line 2 of", "0xE3", "not valid UTF-8", "ISO-8859-2", "iconv"]),
        ("train.csv", "question,answer\ncâte,#### 1\n".encode("iso-8859-2"), ["line 2 of", "iconv"]),
        ("train.jsonl", gzip.compress(b"{}", mtime=0), ["contains gzip data", "Name it train.jsonl.gz"]),
        (
            "train.jsonl.gz",
            gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0),
            ["contains gzip data when decompressed", "Decompress it, and name it by its content"],
        ),
        ("train.jsonl", as_parquet(ROWS), ["contains Parquet data", "Name it train.parquet"]),
        ("train.json", b"PK\x03\x04rest", ["is a zip archive", "Unpack it"]),
        ("train.jsonl", b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS pointer", "git lfs pull"]),
        ("train.parquet", b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS pointer", "git lfs pull"]),
        ("train.jsonl.gz", b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS pointer", "git lfs pull"]),
        ("train.jsonl.gz", as_jsonl(ROWS), ["is not complete gzip data"]),
        ("train.jsonl.gz", gzip.compress(as_jsonl(ROWS), mtime=0)[:-9], ["is not complete gzip data"]),
        ("train.parquet", as_jsonl(ROWS), ["is not a Parquet file"]),
        ("train.parquet", b"", ["is not a Parquet file"]),
        ("train.csv", b"question;answer\nq;a\n", ["columns separated by ';'", "by commas"]),
        ("train.csv", b"question,answer,answer\nq,a,b\n", ["line 1 of", "column 'answer' twice"]),
        ("train.csv", b"question,answer\nq,a,b\n", ["line 2 of", "has 3 values under 2 columns"]),
        ("train.csv", b'question,answer\nq,a\n"q,a\n', ["line 3 of", "is not CSV"]),
        ("train.csv", b'question,answer\n"a\nb",c\nq\n', ["line 4 of", "no text in its field 'answer'"]),
    ],
)  # fmt: skip
def test_other_content_is_refused_with_its_likely_format_its_place_and_a_remedy(
    tmp_path: Path, name: str, data: bytes, parts: list[str]
) -> None:
    message = str(refused(tmp_path, name, data))
    assert "data.train" in message
    assert str(tmp_path / name) in message
    assert all(part in message for part in parts), message


def test_a_value_is_truncated_to_120_characters_however_large_it_is(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "long " * 1000}] * 50
    error = refused(tmp_path, "train.jsonl", json.dumps({"question": messages, "answer": "a"}))
    assert len(str(error.value)) <= 120
    error = refused(tmp_path, "train.jsonl", json.dumps([[GOOD] * 1000]))
    assert len(str(error.value)) <= 120
    error = refused(tmp_path, "train.jsonl", "{" + "x" * 10_000)
    assert len(str(error.value)) <= 120


def test_a_column_that_parquet_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    error = refused(tmp_path, "train.parquet", as_parquet([{"question": "q", "reply": "r"}]))
    assert "record 1 of" in str(error)
    assert "no text in its field 'answer'; it has question, reply" in str(error)


def test_a_full_disk_while_data_is_converted_is_not_attributed_to_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        cause = OSError(errno.ENOSPC, "No space left on device")
        raise DatasetGenerationError("An error occurred while generating the dataset") from cause

    monkeypatch.setattr("datasets.load_dataset", full)
    with pytest.raises(DatasetGenerationError):
        load_splits(DataSpec(hub="some-org/some-data"))
