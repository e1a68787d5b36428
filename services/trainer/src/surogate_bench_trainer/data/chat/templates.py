"""Rendering of conversations by a tokenizer's chat template, and the parts of the text that are the assistant's.

A template that marks the assistant's parts itself (``{% generation %}``) is followed. Otherwise the part of a message
starts where the rendered prompt for it ends, and ends where the next message starts: it includes the marker of its end.
The same parts count in TRL's ``SFTTrainer``.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import compress, takewhile, zip_longest
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateSyntaxError

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.reading.detection import TOOLS
from surogate_bench.inputs.reading.text import shortened
from surogate_bench.specs.data import MANAGED_TEMPLATE_ARGUMENTS
from surogate_bench_trainer.data.chat.conversations import ASSISTANT
from surogate_bench_trainer.data.chat.template_names import FUNCTIONS, used_fields, used_variables
from surogate_bench_trainer.data.records import Message, Rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = tuple[int, int]
"""Start and end (exclusive), in characters."""

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = "\ue000"
"""A character of the private use area, which no template treats specially."""


class UnclearPartsError(ValueError):
    """The template renders a message differently once others follow, so that its part cannot be found."""


class UnusedPartError(ValueError):
    """The template leaves out a part of the record, which it names."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The chat template of a tokenizer. Methods raise whatever the template raises."""

    tokenizer: "PreTrainedTokenizerBase"
    arguments: Mapping[str, Any]
    """Further arguments of the template, such as ``enable_thinking``."""

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render messages with the header of the answer to generate."""
        return self._render(messages, answer_follows=True)

    def training_text(self, messages: Sequence[Message], loss_on: Literal["all-assistant-turns", "last"]) -> Rendered:
        """Render a conversation with the assistant's parts to learn from.

        Raises:
            UnclearPartsError: a part cannot be found.
            UnusedPartError: the template uses no tools, or no reasoning, and there are some.
        """
        self._require_used(messages)
        marked = self._marked(messages)
        text, parts = marked or self._found(messages, loss_on)
        if not parts or any(start >= end for start, end in parts):
            raise UnclearPartsError
        counted = parts[-1:] if loss_on == "last" else parts
        follows_prompt = marked is None and loss_on == "last"
        return Rendered(text, counted, special_tokens=False, follows_prompt=follows_prompt)

    def with_tools(self, tools: Sequence[Any]) -> "ChatTemplate":
        """Return the template with tools for the assistant."""
        return replace(self, arguments={**self.arguments, TOOLS: tools})

    @property
    def source(self) -> str:
        """The template's text: that for tools, if there are some and the tokenizer has one of its own for them."""
        return str(self.tokenizer.get_chat_template(tools=self.arguments.get(TOOLS)))

    def end_of_answer(self) -> tuple[int, ...]:
        """Return the tokens behind an answer, the last message: its end, and perhaps that of the conversation."""
        text = self._render([Message("user", "x"), Message(ASSISTANT, _PROBE)])
        tokens: list[int] = self.tokenizer(text.rpartition(_PROBE)[2], add_special_tokens=False)["input_ids"]
        return tuple(tokens)

    def lacks_header(self) -> bool:
        """Return whether prompts end before a header of the answer, because the template renders none for them."""
        asked, answer = Message("user", "x"), Message(ASSISTANT, _PROBE)
        prompt = self.prompt([asked])
        text = self._render([asked, answer])
        if prompt != self._render([asked]) or not text.startswith(prompt):
            return False
        return bool(text[len(prompt) :].partition(_PROBE)[0].strip())

    def _require_used(self, messages: Sequence[Message]) -> None:
        if TOOLS in self.arguments and TOOLS not in used_variables(self.source):
            raise UnusedPartError("tools")
        for number, message in enumerate(messages, start=1):
            for name, _ in message.reasoning:
                if name not in used_fields(self.source):
                    raise UnusedPartError(f"{name} of message {number}")

    def _marked(self, messages: Sequence[Message]) -> tuple[str, tuple[Part, ...]] | None:
        """Return text and parts by the template's own marks; None if it has none."""
        template = self.source
        if not _MARKS.search(template):
            return None
        from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415 - slow to import

        texts, parts = render_jinja_template(
            conversations=[_plain(messages)],
            chat_template=template,
            return_assistant_tokens_mask=True,
            **{**self.tokenizer.special_tokens_map, **self.arguments},
        )
        return texts[0], _learned([(start, end) for start, end in parts[0]], messages)

    def _found(
        self, messages: Sequence[Message], loss_on: Literal["all-assistant-turns", "last"]
    ) -> tuple[str, tuple[Part, ...]]:
        text = self._render(messages)
        places = [index for index, message in enumerate(messages) if message.role == ASSISTANT and message.is_learned]
        chosen = places[-1:] if loss_on == "last" else places
        return text, tuple(self._part(text, messages, index) for index in chosen)

    def _part(self, text: str, messages: Sequence[Message], index: int) -> Part:
        start = self._start(text, messages, index)
        if index + 1 == len(messages):
            return start, len(text)
        ending = self._render(messages[: index + 1])
        if text.startswith(ending):
            return start, len(ending)
        # The template changes a message when others follow, as Qwen3's removes thinking from earlier ones: find the end
        # of its content, and add what follows the content where it is the last.
        end = self._position(text, messages, index, at_end=True)
        after = ending[self._position(ending, messages[: index + 1], index, at_end=True) :]
        return start, end + self._shared_tokens(after, text[end:])

    def _start(self, text: str, messages: Sequence[Message], index: int) -> int:
        """Return where the prompt for a message ends in a text; the first message starts with its content."""
        if index == 0:
            return self._position(text, messages, index, at_end=False)
        prompt = self.prompt(messages[:index])
        if text.startswith(prompt):
            return self._after_header(text, messages, index, prompt)
        # The prompt may end otherwise, for example in the start of a thinking block, but must contain what was said.
        start = _shared(prompt, text)
        if start < self._position(text, messages, index - 1, at_end=True):
            raise UnclearPartsError
        return start

    def _after_header(self, text: str, messages: Sequence[Message], index: int, prompt: str) -> int:
        """Return where a message starts behind its prompt, and behind a header that the prompt lacks."""
        start, content = len(prompt), messages[index].content.strip()
        if "add_generation_prompt" in used_variables(self.source) and text[start:].lstrip().startswith(content):
            return start
        if prompt != self._render(messages[:index]):
            return start
        position = self._position(text, messages, index, at_end=False)
        if not text[start:position].strip():
            return start
        if messages[index].reasoning:  # it may be between header and content
            raise UnclearPartsError
        return position

    def _shared_tokens(self, start: str, text: str) -> int:
        """Return the length of the common beginning of two texts in characters, without parts of tokens."""
        both = self.tokenizer([start, text], add_special_tokens=False, return_offsets_mapping=True)
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(*both["input_ids"], strict=False))
        shared = sum(1 for _ in pairs)
        return int(both["offset_mapping"][0][shared - 1][1]) if shared else 0

    def _position(self, text: str, messages: Sequence[Message], index: int, *, at_end: bool) -> int:
        """Return where the content of a message starts or ends in a text, by inserting a character there."""
        content = messages[index].content
        place = len(content.rstrip()) if at_end else len(content) - len(content.lstrip())
        probed = replace(messages[index], content=f"{content[:place]}{_PROBE}{content[place:]}")
        other = self._render([*messages[:index], probed, *messages[index + 1 :]])
        position = other.find(_PROBE)
        if position < 0 or other.replace(_PROBE, "", 1) != text:
            raise UnclearPartsError
        return position

    def _render(self, messages: Sequence[Message], *, answer_follows: bool = False) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                _plain(messages), tokenize=False, add_generation_prompt=answer_follows, **self.arguments
            )
        )


def chat_template_of(
    tokenizer: "PreTrainedTokenizerBase", arguments: Mapping[str, Any], *, needed_by: str
) -> ChatTemplate:
    """Return the tokenizer's chat template.

    Args:
        tokenizer: Tokenizer of the base model.
        arguments: Further arguments of the template.
        needed_by: Setting that needs it.

    Raises:
        ConfigError: there is none, it is not valid, or an argument has the name of no variable that is left to it.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            "the model's tokenizer has no chat template, which conversations need",
            field=needed_by,
            remedy="Use an instruct model (its tokenizer_config.json or chat_template.jinja has a template), or data "
            "without conversations.",
        )
    try:
        used = used_variables(tokenizer.get_chat_template())
    except (ValueError, TypeError) as error:  # several templates without a default, or no text
        raise ConfigError(
            f"the model's chat template cannot be used: {_described(error)}",
            field=needed_by,
            remedy="Give one template, or one with the name default, in a copy of the tokenizer's files.",
        ) from error
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"the model's chat template is not valid: {_described(error)}",
            field=needed_by,
            value=f"line {error.lineno}",
            remedy="Correct chat_template in the tokenizer's files.",
        ) from error
    taken = FUNCTIONS | tokenizer.special_tokens_map.keys()
    for name, value in arguments.items():
        if name in taken or name not in used:
            raise _unusable_argument(name, value, used - MANAGED_TEMPLATE_ARGUMENTS - taken, is_taken=name in taken)
    return ChatTemplate(tokenizer, arguments)


def _unusable_argument(name: str, value: object, usable: Set[str], *, is_taken: bool) -> ConfigError:
    problem = (
        "every chat template receives this function or special token, and the argument would replace it"
        if is_taken
        else "the model's chat template uses no variable of this name, so the argument would have no effect"
    )
    return ConfigError(
        problem,
        field=f"data.chat_template_arguments.{name}",
        value=str(value),
        remedy=f"Remove or correct it: the template uses {', '.join(sorted(usable)) or 'no other variables'}.",
    )


def template_error(error: Exception, messages: Sequence[Message], *, field: str) -> ConfigError:
    """Return the error for a conversation that a template does not render."""
    if isinstance(error, UnusedPartError):
        problem = f"the model's chat template does not use the {error} of this record, so training would leave it out"
        remedy = "Remove it from the record, or use a model whose template uses it."
    elif isinstance(error, UnclearPartsError):
        problem = (
            "the model's chat template changes earlier messages, so it is not clear which tokens are the assistant's"
        )
        remedy = "Set data.loss_on: last, or use a template that marks them with {% generation %}."
    else:
        problem = f"the model's chat template fails on a conversation of {_roles(messages)}: {_described(error)}"
        remedy = "Correct the record or data.chat_template_arguments: the roles and their order are the template's."
    return ConfigError(problem, field=field, value=shortened(messages[0].content), remedy=remedy)


def _shared(start: str, text: str) -> int:
    """Return the length of the common beginning of two texts."""
    return next(index for index, (one, other) in enumerate(zip_longest(start, text)) if one != other)


def _roles(messages: Sequence[Message]) -> str:
    return shortened(", ".join(message.role for message in messages))


def _described(error: Exception) -> str:
    text = shortened(" ".join(str(error).split()))
    return text or type(error).__name__


def _learned(parts: list[Part], messages: Sequence[Message]) -> tuple[Part, ...]:
    """Leave out the parts of messages that do not count.

    Raises:
        UnclearPartsError: there are some, and the template does not mark one part for each message.
    """
    counts = [message.is_learned for message in messages if message.role == ASSISTANT]
    if all(counts):
        return tuple(parts)
    if len(parts) != len(counts):
        raise UnclearPartsError
    return tuple(compress(parts, counts))


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content, **dict(message.reasoning)} for message in messages]
