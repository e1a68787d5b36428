"""Tools of a conversation: JSON schemas that are handed to the chat template."""

import json
from collections.abc import Mapping
from decimal import Decimal

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.reading.fields import Number, Place, kind_of, valid_text


def tools_from(given: object, place: Place) -> str:
    """Read the tools that a record states, as a list of objects or as JSON text.

    Args:
        given: Value of the record's field.
        place: Location of the record.

    Returns:
        A JSON list; empty if there are no tools.

    Raises:
        ConfigError: it is something else, or has values that JSON or Unicode does not have.
    """
    try:
        tools = _parsed(given, place) if isinstance(given, str) else _plain(given)
        if tools is None or tools in ("", [], {}):  # but not 0 or false, which are mistakes
            return ""
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            raise _no_list(given, place)
        text = json.dumps(tools, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise place.error(
            f"has a value in its field 'tools' that cannot be written as JSON: {error}",
            value=given,
            remedy="Write texts, finite numbers, Booleans, lists and objects, or remove the field.",
        ) from error
    return valid_text(text, "tools", place)


def _no_list(given: object, place: Place) -> ConfigError:
    return place.error(
        f"has no list of tools in its field 'tools' (found {kind_of(given)})",
        value=given,
        remedy='Write a list such as [{"type": "function", "function": {"name": ...}}], or remove the field.',
    )


def _parsed(text: str, place: Place) -> object:
    if not text.strip():
        return None
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise place.error(
            f"has text in its field 'tools' that is not JSON: {error}",
            value=text,
            remedy="Correct the record, or remove the field.",
        ) from error
    return parsed


def _plain(value: object) -> object:
    """Return a decoded value with its numbers as numbers, and without what a table of Parquet fills in for absence."""
    match value:
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items() if each is not None}
        case list():
            return [_plain(each) for each in value]
        case Number():
            return json.loads(value)
        case Decimal():
            return float(value)
        case _:
            return value
