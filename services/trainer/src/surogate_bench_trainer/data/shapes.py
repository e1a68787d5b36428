"""Shapes of records: conversion of decoded records, whose shape is detected or stated."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from surogate_bench.inputs.reading.detection import REQUIRED_ROLES, detect_format, message_lists
from surogate_bench.inputs.reading.fields import Place, as_text, kind_of, text_field, valid_text
from surogate_bench.specs.data import DataFormat, DataSpec
from surogate_bench_trainer.data.chat.conversations import conversation_from
from surogate_bench_trainer.data.records import Completion, ReadRecord, Record, Text


def stated_format(spec: DataSpec, split: str) -> DataFormat | None:
    """Return the shape of a split's records as the sweep states it; None if it is to be detected.

    Test records have a question and an answer whatever the training records are; :func:`detect_format` detects theirs.
    """
    return None if spec.format == "auto" or split == "test" else spec.format


def record_from(fields: object, shape: DataFormat, *, spec: DataSpec, place: Place) -> ReadRecord:
    """Convert a decoded record. Fields that its shape does not have are ignored.

    Args:
        fields: The decoded record, of any type.
        shape: Its shape.
        spec: Provides the names of fields.
        place: Location of the record.

    Raises:
        ConfigError: the record is not an object, or a field is missing, empty, or not of the required type.
    """
    if not isinstance(fields, dict):
        example = ", ".join(f'"{role}": ...' for role in REQUIRED_ROLES[shape])
        raise place.error(
            f"must be an object, not {kind_of(fields)}", value=fields, remedy=f"Write records such as {{{example}}}."
        )
    return _READERS[shape](fields, spec, place)


def records_from(raw: Iterable[tuple[Any, Place]], spec: DataSpec, shape: DataFormat | None) -> list[ReadRecord]:
    """Convert all records of a split, in the given shape or, if that is None, in the shape of the first record."""
    records = list[ReadRecord]()
    for fields, place in raw:
        shape = shape or detect_format(fields, spec)
        records.append(record_from(fields, shape, spec=spec, place=place))
    return records


def _question_answer(fields: Mapping[str, Any], spec: DataSpec, place: Place) -> Record:
    return Record(_text(fields, "question", spec, place), _text(fields, "answer", spec, place))


def _prompt_completion(fields: Mapping[str, Any], spec: DataSpec, place: Place) -> Completion:
    return Completion(_text(fields, "prompt", spec, place), _text(fields, "completion", spec, place))


def _instruction(fields: Mapping[str, Any], spec: DataSpec, place: Place) -> Record:
    """Join instruction and input by a blank line, as the question."""
    question = _text(fields, "instruction", spec, place)
    name = spec.name_of("input")
    given = fields.get(name)
    if given is not None and (context := as_text(given)) is None:
        raise place.error(
            f"has no text in its field {name!r} (found {kind_of(given)})",
            value=given,
            remedy="Correct the record, or set data.fields.input.",
        )
    if given is not None and context and context.strip():
        question = f"{question}\n\n{valid_text(context, name, place)}"
    return Record(question, _text(fields, "output", spec, place))


def _whole_text(fields: Mapping[str, Any], spec: DataSpec, place: Place) -> Text:
    return Text(_text(fields, "text", spec, place))


_READERS: Mapping[DataFormat, Callable[[Mapping[str, Any], DataSpec, Place], ReadRecord]] = MappingProxyType(
    {
        "question-answer": _question_answer,
        "prompt-completion": _prompt_completion,
        "instruction": _instruction,
        "text": _whole_text,
        "messages": lambda fields, spec, place: conversation_from(fields, message_lists(spec), spec, place),
    }
)


def _text(fields: Mapping[str, Any], role: str, spec: DataSpec, place: Place) -> str:
    setting = f"data.{role}_field" if role in ("question", "answer") else f"data.fields.{role}"
    return text_field(fields, spec.name_of(role), place=place, setting=setting)
