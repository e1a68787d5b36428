"""Questions and answers as records, and the prepared ones as JSON lines."""

import json
import math
import re
import reprlib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from surogate_bench.errors import ConfigError
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.text import shortened

FINAL_ANSWER = re.compile(r"#### (-?[0-9.,]+)")
"""The line a GSM8K answer ends with; the number is what evaluation compares."""

_KINDS = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "a truth value", bytes: "bytes"}


@dataclass(frozen=True, slots=True)
class Record:
    """One question and its worked answer."""

    question: str
    answer: str


def record_from(fields: Any, *, spec: DataSpec, where: str, place: str = "the record") -> Record:  # noqa: ANN401
    """Take question and answer out of one decoded record.

    A number is read as text: 18 as ``18`` (in JSON and CSV exactly as written), and true as ``true``. Other fields may
    hold anything.

    Args:
        fields: The decoded record, whatever the file holds.
        spec: Names the two fields.
        where: Where it was found, for example ``data.train:17``.
        place: The same in words, for example ``line 17 of /data/train.jsonl``.

    Raises:
        ConfigError: it is not an object, or one of the two is missing, empty, neither text nor number, or not Unicode.
    """
    if not isinstance(fields, dict):
        raise ConfigError(
            f"{place} must be an object, not {_KINDS.get(type(fields), type(fields).__name__)}",
            field=where,
            value=_shown(fields),
            remedy='Write records such as {"question": ..., "answer": ...}.',
        )
    question, answer = (
        _text(fields, name, where=where, place=place, setting=setting)
        for setting, name in (("question_field", spec.question_field), ("answer_field", spec.answer_field))
    )
    return Record(question, answer)


def _text(fields: dict[str, Any], name: str, *, where: str, place: str, setting: str) -> str:
    value = fields.get(name)
    text = _as_text(value)
    if text is None or not text.strip():
        kind = (
            "" if value is None or isinstance(value, str) else f" but {_KINDS.get(type(value), type(value).__name__)}"
        )
        raise ConfigError(
            f"{place} has no text in its field {name!r}{kind}; it has {_names(fields)}",
            field=where,
            value=_shown(value),
            remedy=f"Correct the record, or set data.{setting}.",
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{place} has half of a character, {text[error.start]!r} (a lone surrogate), in its field {name!r}",
            field=where,
            value=_shown(text),
            remedy="Correct the character: text that is not valid Unicode cannot be stored.",
        ) from error
    return text


def _as_text(value: Any) -> str | None:  # noqa: ANN401 - see record_from
    """Text of a text, number or truth value; None for what has none."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float() if math.isnan(value):
            return None
        case int() | float() | Decimal():
            return str(value)
        case _:
            return None


def _names(fields: dict[str, Any]) -> str:
    names = ", ".join(map(str, fields)).encode(errors="backslashreplace").decode()
    return shortened(names) or "no fields"


def _shown(value: Any) -> object:  # noqa: ANN401 - see record_from
    """What a message shows of a value: 120 characters at most, however large or deep it is."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return shortened(value if isinstance(value, str) else reprlib.repr(value))


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
