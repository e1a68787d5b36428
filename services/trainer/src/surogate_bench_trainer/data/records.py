"""Questions and answers as records, and as JSON lines."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surogate_bench.errors import ConfigError
from surogate_bench.specs.data import DataSpec

FINAL_ANSWER = re.compile(r"#### (-?[0-9.,]+)")
"""The line a GSM8K answer ends with; the number is what evaluation compares."""


@dataclass(frozen=True, slots=True)
class Record:
    """One question and its worked answer."""

    question: str
    answer: str


def record_from(fields: Any, *, spec: DataSpec, where: str) -> Record:  # noqa: ANN401 - whatever the file holds
    """Take question and answer out of one decoded record.

    Args:
        fields: The decoded record.
        spec: Names the two fields.
        where: Where it was found, for example ``data.train:17``.

    Raises:
        ConfigError: it is not an object, or one of the two is missing, not a text, or empty.
    """
    if not isinstance(fields, dict):
        raise ConfigError(
            f"a record must be an object, not {type(fields).__name__}",
            field=where,
            value=fields,
            remedy='Write one object a line, such as {"question": ..., "answer": ...}.',
        )
    texts = []
    for setting, name in (("question_field", spec.question_field), ("answer_field", spec.answer_field)):
        text = fields.get(name)
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(
                f"the record has no text in its field {name!r}; it has {', '.join(map(str, fields)) or 'no fields'}",
                field=where,
                value=text,
                remedy=f"Correct the record, or set data.{setting}.",
            )
        texts.append(text)
    return Record(*texts)


def read_records(path: Path, *, spec: DataSpec, split: str) -> list[Record]:
    """Read a JSONL file; blank lines are skipped.

    Raises:
        ConfigError: it cannot be read, or a line is malformed (the error names its number).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"cannot be read: {reason}",
            field=f"data.{split}",
            value=str(path),
            remedy="Give a folder with train.jsonl and test.jsonl.",
        ) from error
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise ConfigError(
                f"line {number} of {path} is not JSON: {error}",
                field=f"data.{split}:{number}",
                value=line[:80],
                remedy="Correct or remove the line.",
            ) from error
        records.append(record_from(fields, spec=spec, where=f"data.{split}:{number}"))
    return records


def write_records(path: Path, records: list[Record]) -> None:
    """Write prepared records, one JSON object a line."""
    lines = [
        json.dumps({"question": record.question, "answer": record.answer}, ensure_ascii=False) for record in records
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_prepared(path: Path) -> list[Record]:
    """Read back what :func:`write_records` wrote."""
    with path.open(encoding="utf-8") as file:
        return [Record(**json.loads(line)) for line in file]
