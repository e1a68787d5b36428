"""Records as they are read, and the JSON lines of the prepared data."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One question and its worked answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and its completion, used exactly as they are."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text that counts as a whole."""

    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str
    reasoning: tuple[tuple[str, str], ...] = ()
    """Name and text of fields for the chat template in addition to ``content``, such as ``reasoning_content``."""
    is_learned: bool = True
    """Whether the message counts in the loss if it is the assistant's."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, at least one of which is the assistant's and learned."""

    messages: tuple[Message, ...]
    tools: str = ""
    """Tools that the assistant may call, as a JSON list for the chat template; empty if there are none."""


ReadRecord = Record | Completion | Text | Conversation
"""A record of a data set in any shape."""

ScoredRecord = Record | Completion
"""A record with a question and an answer, which a task can score."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A training sample as one text, and the parts of it that count in the loss."""

    text: str
    counted: tuple[tuple[int, int], ...]
    """Start and end (exclusive) of each part, in characters, ascending."""
    special_tokens: bool
    """Whether the special tokens that the tokenizer adds to a text are still to be added."""
    follows_prompt: bool = False
    """Whether the one part that counts follows a prompt, and starts with the first token that the prompt alone would
    not have."""


PreparedRecord = Record | Completion | Rendered
"""A record of the prepared data."""


def write_records(path: Path, records: Sequence[PreparedRecord]) -> None:
    """Write prepared records, one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)


def read_prepared(path: Path) -> list[PreparedRecord]:
    """Read a file that :func:`write_records` has written."""
    with path.open(encoding="utf-8") as file:
        return [_prepared(json.loads(line)) for line in file]


def _prepared(fields: dict[str, Any]) -> PreparedRecord:
    if "question" in fields:
        return Record(**fields)
    if "prompt" in fields:
        return Completion(**fields)
    counted = tuple((start, end) for start, end in fields.pop("counted"))
    return Rendered(counted=counted, **fields)
