"""Conversations: messages with ``role`` and ``content``, or as in ShareGPT with ``from`` and ``value``."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from surogate_bench.inputs.reading.detection import SYSTEM, TOOLS
from surogate_bench.inputs.reading.fields import Place, as_text, kind_of, names_of, valid_text
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.chat.tools import tools_from
from surogate_bench_trainer.data.records import Conversation, Message

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
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Names of what the assistant thinks before it answers, which chat templates read in addition to the content."""


_WEIGHTS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def conversation_from(fields: Mapping[str, Any], lists: Sequence[str], spec: DataSpec, place: Place) -> Conversation:
    """Read the messages of a decoded record, with its tools and its system message. An empty one counts as absent.

    Args:
        fields: The decoded record.
        lists: Possible names of the field with the messages.
        spec: Provides the names of the fields of a message.
        place: Location of the record.

    Raises:
        ConfigError: there is no list of messages, a message has no text or an unknown role, no message is the
            assistant's and learned, or system message or tools are malformed.
    """
    name = next((name for name in lists if fields.get(name) is not None), lists[0])
    given = fields.get(name)
    if not isinstance(given, list):
        kind = "" if given is None else f" (found {kind_of(given)})"
        raise place.error(
            f"has no list of messages in its field {name!r}{kind}; it has {names_of(fields)}",
            value=given,
            remedy="Correct the record, or set data.fields.messages.",
        )
    read = (_message(each, spec, place, number) for number, each in enumerate(given, start=1))
    messages = _with_system(tuple(message for message in read if message is not None), fields.get(SYSTEM), place)
    answers = [message for message in messages if message.role == ASSISTANT]
    if not answers:
        raise place.error(
            "has no message of the assistant, so there is nothing to learn from it",
            value=given,
            remedy="Remove the record, or add the assistant's message.",
        )
    if not any(message.is_learned for message in (answers[-1:] if spec.loss_on == "last" else answers)):
        raise place.error(
            f"gives {'the last' if spec.loss_on == 'last' else 'every'} message of the assistant weight 0, so there is "
            "nothing to learn from it",
            value=given,
            remedy="Remove the record, or give one weight 1.",
        )
    return Conversation(messages, tools_from(fields.get(TOOLS), place))


def _with_system(messages: tuple[Message, ...], given: object, place: Place) -> tuple[Message, ...]:
    """Put a system message next to the messages (as in ShareGPT) before them."""
    text = as_text(given)
    if given is not None and text is None:
        raise place.error(
            f"has no text in its field {SYSTEM!r} (found {kind_of(given)})", value=given, remedy="Correct the record."
        )
    if not text or not text.strip():
        return messages
    own = [message.content for message in messages if message.role in _MAY_BE_EMPTY]
    if own == [text]:
        return messages
    if own:
        raise place.error(
            f"has a system message in its field {SYSTEM!r} and another one among its messages",
            value=text,
            remedy="Remove one of them.",
        )
    return (Message(SYSTEM, valid_text(text, SYSTEM, place)), *messages)


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
    return Message(
        role,
        valid_text(text, name, place),
        _reasoning(given, role, place, number),
        is_learned=_is_learned(given.get("weight"), place, number),
    )


def _reasoning(given: Mapping[str, Any], role: str, place: Place, number: int) -> tuple[tuple[str, str], ...]:
    found = list[tuple[str, str]]()
    for name in _REASONING:
        value = given.get(name)
        text = as_text(value)
        if value is None or (text is not None and not text.strip()):
            continue
        if text is None or role != ASSISTANT:
            problem = "no text" if text is None else f"the reasoning of {role}"
            raise place.error(
                f"has {problem} in {name!r} of message {number}",
                value=value,
                remedy="Correct or remove it: it is the text that the assistant thinks before it answers.",
            )
        found.append((name, valid_text(text, name, place)))
    return tuple(found)


def _is_learned(weight: object, place: Place, number: int) -> bool:
    """Return whether a message counts, by its ``weight``: 0 or 1, as in OpenAI's format."""
    text = as_text(weight)
    value = None if text is None else _WEIGHTS.get(text)
    if weight is not None and value is None:
        raise place.error(
            f"has a weight in message {number} that is neither 0 nor 1, which training does not support",
            value=weight,
            remedy="Write 0 (the message does not count in the loss) or 1.",
        )
    return value is not False


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
