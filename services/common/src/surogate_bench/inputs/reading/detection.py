"""The shape of a record by the names of its fields."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from surogate_bench.specs.data import SHAPE_ROLES, DataFormat, DataSpec

MESSAGE_LISTS = ("messages", "conversations")
"""Usual names of the field that holds the messages."""
SYSTEM, TOOLS = "system", "tools"
BESIDE_MESSAGES = (SYSTEM, TOOLS)
"""Fields of a record that belong to its conversation."""

_OPTIONAL = frozenset({"input"})
REQUIRED_ROLES: Mapping[DataFormat, tuple[str, ...]] = MappingProxyType(
    {shape: tuple(role for role in roles if role not in _OPTIONAL) for shape, roles in SHAPE_ROLES.items()}
)
_ORDER: tuple[DataFormat, ...] = ("question-answer", "messages", "prompt-completion", "instruction", "text")
"""The first shape whose fields a record has is the detected one, unless the sweep names fields of another. A ``text``
along with other fields is often a rendering of them, so it comes last."""

SCORED_FORMATS: frozenset[DataFormat] = frozenset({"question-answer", "prompt-completion", "instruction"})
"""Shapes that have a question and an answer."""

FINAL_ANSWER = re.compile(r"#### (-?[0-9.,]+)")
"""The last line of a GSM8K answer, whose number evaluation compares."""


def columns(spec: DataSpec) -> tuple[str, ...]:
    """Return the names of all fields that a record may be made of."""
    named = (spec.name_of(role) for roles in SHAPE_ROLES.values() for role in roles)
    return tuple(dict.fromkeys((*named, *message_lists(spec), *BESIDE_MESSAGES)))


def detect_format(fields: object, spec: DataSpec) -> DataFormat:
    """Return the shape that the names of a record's fields fit, one of which the sweep names a field before others.

    The shape that the sweep states for training records comes before all. If none fits, it is the first of which the
    sweep names a field, or ``question-answer``: test records may have fields of their own.
    """
    present = fields if isinstance(fields, dict) else {}
    stated = [shape for shape in SCORED_FORMATS if shape == spec.format]
    order = sorted(_ORDER, key=lambda shape: shape not in spec.named_shapes)
    otherwise = "question-answer" if order[0] in stated else order[0]
    return next((shape for shape in (*stated, *order) if fits(shape, present, spec)), otherwise)


def fits(shape: DataFormat, present: Mapping[str, object], spec: DataSpec) -> bool:
    """Return whether a record has the fields that a shape requires, by the names that the sweep gives them."""
    if shape == "messages":
        return any(name in present for name in message_lists(spec))
    return all(spec.name_of(role) in present for role in REQUIRED_ROLES[shape])


def message_lists(spec: DataSpec) -> tuple[str, ...]:
    """Return the possible names of the field that holds the messages."""
    return (spec.fields.messages,) if spec.fields.messages else MESSAGE_LISTS
