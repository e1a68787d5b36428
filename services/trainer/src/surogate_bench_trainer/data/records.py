"""Records of questions and answers, and their JSON lines in the prepared data."""

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
"""The last line of a GSM8K answer, whose number evaluation compares."""

_KINDS = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "a truth value", bytes: "bytes"}


@dataclass(frozen=True, slots=True)
class Record:
    """One question and its worked answer."""

    question: str
    answer: str


def record_from(fields: Any, *, spec: DataSpec, where: str, place: str = "the record") -> Record:  # noqa: ANN401
    """Read question and answer from a decoded record.

    Numbers are converted to text: 18 to ``18`` (in JSON and CSV exactly as written), and true to ``true``. All other
    fields are ignored.

    Args:
        fields: The decoded record, of any type.
        spec: Provides the names of the two fields.
        where: Location of the record as a field name, for example ``data.train:17``.
        place: Location of the record in prose, for example ``line 17 of /data/train.jsonl``.

    Raises:
        ConfigError: the record is not an object, or one of the two fields is missing, empty, neither text nor number,
            or not valid Unicode.
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
            f"{place} has a lone surrogate, {text[error.start]!r}, in its field {name!r}",
            field=where,
            value=_shown(text),
            remedy="Correct the character: text that is not valid Unicode cannot be stored.",
        ) from error
    return text


def _as_text(value: Any) -> str | None:  # noqa: ANN401 - see record_from
    """Return the text of a string, number or truth value, or None for any other value."""
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
    """Return at most 120 characters of a value for an error message, however large or deep the value is."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return shortened(value if isinstance(value, str) else reprlib.repr(value))


def write_records(path: Path, records: list[Record]) -> None:
    """Write prepared records, one JSON object per line."""
    lines = [
        json.dumps({"question": record.question, "answer": record.answer}, ensure_ascii=False) for record in records
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_prepared(path: Path) -> list[Record]:
    """Read a file that :func:`write_records` has written."""
    with path.open(encoding="utf-8") as file:
        return [Record(**json.loads(line)) for line in file]
