"""Reading of texts from the fields of a decoded record."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.reading.text import shortened


class Number(str):
    """A number of JSON as it was written."""

    __slots__ = ()


_KINDS = {
    dict: "an object", list: "a list", str: "text", type(None): "null", bool: "a Boolean", bytes: "bytes",
    Number: "a number",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Location of a record, for error messages."""

    where: str
    """Place of the record as a field name, for example ``data.train:17``."""
    prose: str = "the record"
    """The same in prose, for example ``line 17 of /data/train.jsonl``."""

    def error(self, problem: str, *, value: object, remedy: str) -> ConfigError:
        """Return the error for this record."""
        return ConfigError(f"{self.prose} {problem}", field=self.where, value=shown(value), remedy=remedy)


def text_field(fields: Mapping[str, Any], name: str, *, place: Place, setting: str) -> str:
    """Return a field as text.

    Numbers are converted: 18 to ``18`` (in JSON and CSV exactly as written), and true to ``true``.

    Args:
        fields: The decoded record.
        name: Name of the field.
        place: Location of the record.
        setting: Setting of the sweep that names the field.

    Raises:
        ConfigError: it is missing, empty, neither text nor number, or not valid Unicode.
    """
    value = fields.get(name)
    text = as_text(value)
    if text is None or not text.strip():
        kind = "" if value is None or isinstance(value, str) else f" (found {kind_of(value)})"
        raise place.error(
            f"has no text in its field {name!r}{kind}; it has {names_of(fields)}",
            value=value,
            remedy=f"Correct the record, or set {setting}.",
        )
    return valid_text(text, name, place)


def valid_text(text: str, name: str, place: Place) -> str:
    """Return a text of a field unless it is not valid Unicode.

    Raises:
        ConfigError: it is not.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise place.error(
            f"has a lone surrogate, {text[error.start]!r}, in its field {name!r}",
            value=text,
            remedy="Correct the character: text that is not valid Unicode cannot be stored.",
        ) from error
    return text


def as_text(value: object) -> str | None:
    """Return the text of a string, number or Boolean, or None for any other value."""
    match value:
        case str():
            return str(value)  # no subclass, such as Number
        case bool():
            return "true" if value else "false"
        case float() if math.isnan(value):
            return None
        case int() | float() | Decimal():
            return str(value)
        case _:
            return None


def kind_of(value: object) -> str:
    """Return what kind of value it is, in prose."""
    return _KINDS.get(type(value), type(value).__name__)


def names_of(fields: Mapping[str, Any]) -> str:
    """Return the names of a record's fields."""
    names = ", ".join(map(str, fields)).encode(errors="backslashreplace").decode()
    return shortened(names) or "no fields"


def shown(value: object) -> object:
    """Return at most 120 characters of a value for an error message, however large or deep the value is."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return shortened(value if isinstance(value, str) else reprlib.repr(value))
