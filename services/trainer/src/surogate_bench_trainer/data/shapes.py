"""Shapes of records: detection by the names of fields, and conversion to records."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from surogate_bench.specs.data import SHAPE_ROLES, DataFormat, DataSpec
from surogate_bench_trainer.data.conversations import BESIDE_MESSAGES, MESSAGE_LISTS, conversation_from
from surogate_bench_trainer.data.fields import Place, as_text, kind_of, text_field, valid_text
from surogate_bench_trainer.data.records import Completion, ReadRecord, Record, Text

_OPTIONAL = frozenset({"input"})
_REQUIRED: Mapping[DataFormat, tuple[str, ...]] = MappingProxyType(
    {shape: tuple(role for role in roles if role not in _OPTIONAL) for shape, roles in SHAPE_ROLES.items()}
)
_ORDER: tuple[DataFormat, ...] = ("question-answer", "messages", "prompt-completion", "instruction", "text")
"""The first shape whose fields a record has is the detected one, unless the sweep names fields of another. A ``text``
beside others is often a rendering of them, so it comes last."""

_SCORED_FORMATS: frozenset[DataFormat] = frozenset({"question-answer", "prompt-completion", "instruction"})
"""Shapes that have a question and an answer."""


def stated_format(spec: DataSpec, split: str) -> DataFormat | None:
    """Return the shape of a split's records as the sweep states it; None if it is to be detected.

    Test records have a question and an answer whatever the training records are: see :func:`detect_format`.
    """
    return None if spec.format == "auto" or split == "test" else spec.format


def columns(spec: DataSpec) -> tuple[str, ...]:
    """Return the names of all fields that a record may be made of."""
    named = (spec.name_of(role) for roles in SHAPE_ROLES.values() for role in roles)
    return tuple(dict.fromkeys((*named, *_message_lists(spec), *BESIDE_MESSAGES)))


def detect_format(fields: object, spec: DataSpec) -> DataFormat:
    """Return the shape that the names of a record's fields fit, one of which the sweep names a field before others.

    The shape that the sweep states for training records comes before all. If none fits, it is the first of which the
    sweep names a field, or ``question-answer``: test records may have fields of their own.
    """
    present = fields if isinstance(fields, dict) else {}
    stated = [shape for shape in _SCORED_FORMATS if shape == spec.format]
    order = sorted(_ORDER, key=lambda shape: shape not in spec.named_shapes)
    otherwise = "question-answer" if order[0] in stated else order[0]
    return next((shape for shape in (*stated, *order) if _fits(shape, present, spec)), otherwise)


def _fits(shape: DataFormat, present: Mapping[str, Any], spec: DataSpec) -> bool:
    if shape == "messages":
        return any(name in present for name in _message_lists(spec))
    return all(spec.name_of(role) in present for role in _REQUIRED[shape])


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
        example = ", ".join(f'"{role}": ...' for role in _REQUIRED[shape])
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
            f"has no text in its field {name!r} but {kind_of(given)}",
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
        "messages": lambda fields, spec, place: conversation_from(fields, _message_lists(spec), spec, place),
    }
)


def _text(fields: Mapping[str, Any], role: str, spec: DataSpec, place: Place) -> str:
    setting = f"data.{role}_field" if role in ("question", "answer") else f"data.fields.{role}"
    return text_field(fields, spec.name_of(role), place=place, setting=setting)


def _message_lists(spec: DataSpec) -> tuple[str, ...]:
    return (spec.fields.messages,) if spec.fields.messages else MESSAGE_LISTS
