"""Tools of a conversation: JSON schemas that are handed to the chat template."""

import json
from collections.abc import Mapping
from decimal import Decimal

from surogate_bench_trainer.data.fields import Number, Place, kind_of


def tools_from(given: object, place: Place) -> str:
    """Read the tools that a record states, as a list of objects or as JSON text.

    Args:
        given: Value of the record's field.
        place: Location of the record.

    Returns:
        A JSON list; empty if there are no tools.

    Raises:
        ConfigError: it is something else.
    """
    tools = _parsed(given, place) if isinstance(given, str) else _plain(given)
    if not tools:
        return ""
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise place.error(
            f"has no list of tools in its field 'tools' but {kind_of(given)}",
            value=given,
            remedy='Write a list such as [{"type": "function", "function": {"name": ...}}], or remove the field.',
        )
    return json.dumps(tools, ensure_ascii=False)


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
