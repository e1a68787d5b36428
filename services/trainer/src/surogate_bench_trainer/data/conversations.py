"""Conversations: messages with ``role`` and ``content``, or as in ShareGPT with ``from`` and ``value``."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.fields import Place, as_text, kind_of, names_of, valid_text
from surogate_bench_trainer.data.records import Conversation, Message

MESSAGE_LISTS = ("messages", "conversations")
"""Usual names of the field that holds the messages."""

ASSISTANT = "assistant"

_ROLES: Mapping[str, str] = MappingProxyType(
    {
        "system": "system",
        "developer": "developer",
        "user": "user",
        "human": "user",
        ASSISTANT: ASSISTANT,
        "gpt": ASSISTANT,
    }
)
"""Roles by the names that data sets give them."""

_MAY_BE_EMPTY = frozenset({"system", "developer"})


def conversation_from(fields: Mapping[str, Any], lists: Sequence[str], spec: DataSpec, place: Place) -> Conversation:
    """Read the messages of a decoded record. An empty system message counts as absent.

    Args:
        fields: The decoded record.
        lists: Possible names of the field with the messages.
        spec: Provides the names of the fields of a message.
        place: Location of the record.

    Raises:
        ConfigError: there is no list of messages, a message has no text or an unknown role, or no message is the
            assistant's.
    """
    name = next((name for name in lists if fields.get(name) is not None), lists[0])
    given = fields.get(name)
    if not isinstance(given, list):
        kind = "" if given is None else f" but {kind_of(given)}"
        raise place.error(
            f"has no list of messages in its field {name!r}{kind}; it has {names_of(fields)}",
            value=given,
            remedy="Correct the record, or set data.fields.messages.",
        )
    read = (_message(each, spec, place, number) for number, each in enumerate(given, start=1))
    messages = tuple(message for message in read if message is not None)
    if not any(message.role == ASSISTANT for message in messages):
        raise place.error(
            "has no message of the assistant, so there is nothing to learn from it",
            value=given,
            remedy="Remove the record, or add the assistant's message.",
        )
    return Conversation(messages)


def _message(given: object, spec: DataSpec, place: Place, number: int) -> Message | None:
    if not isinstance(given, dict):
        raise place.error(
            f"has {kind_of(given)} as message {number}, not an object",
            value=given,
            remedy='Write messages such as {"role": "user", "content": ...}.',
        )
    if calls := given.get("tool_calls") or given.get("function_call"):
        raise place.error(
            f"calls tools in message {number}, which training does not support",
            value=calls,
            remedy="Remove the record.",
        )
    role = _role(given, spec, place, number)
    name = spec.fields.content or ("content" if "content" in given or "value" not in given else "value")
    text = as_text(given.get(name))
    if text is not None and not text.strip() and role in _MAY_BE_EMPTY:
        return None
    if text is None or not text.strip():
        raise place.error(
            f"has no text in {name!r} of message {number}; it has {names_of(given)}",
            value=given.get(name),
            remedy="Correct the record, or set data.fields.content.",
        )
    return Message(role, valid_text(text, name, place))


def _role(given: Mapping[str, Any], spec: DataSpec, place: Place, number: int) -> str:
    name = spec.fields.role or ("role" if "role" in given or "from" not in given else "from")
    value = given.get(name)
    role = _ROLES.get(value) if isinstance(value, str) else None
    if role is None:
        raise place.error(
            f"has no known role in {name!r} of message {number}; it has {names_of(given)}",
            value=value,
            remedy=f"Use one of {', '.join(_ROLES)}, or set data.fields.role.",
        )
    return role
