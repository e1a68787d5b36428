"""Conversion of records to those that are prepared: questions and answers as they are, everything else as text."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from surogate_bench.errors import ConfigError
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.chat.conversations import ASSISTANT
from surogate_bench_trainer.data.chat.templates import ChatTemplate, chat_template_of, template_error
from surogate_bench_trainer.data.encoding import completion_of, end_of_text, prompt_of
from surogate_bench_trainer.data.records import (
    Completion,
    Conversation,
    Message,
    PreparedRecord,
    ReadRecord,
    Record,
    Rendered,
    ScoredRecord,
    Text,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render(
    records: Sequence[ReadRecord], tokenizer: "PreTrainedTokenizerBase", spec: DataSpec, *, split: str
) -> list[PreparedRecord]:
    """Convert the records of a training or validation split.

    Prompts with completions and texts get the end-of-text token, if there is one, unless they end with it.

    Args:
        records: Records in one shape.
        tokenizer: Tokenizer of the base model.
        spec: Whether and how to apply the tokenizer's chat template.
        split: Name of the split, for error messages.

    Raises:
        ConfigError: the tokenizer lacks what they need, or its chat template fails.
    """
    if not spec.chat_template and not any(isinstance(record, Conversation) for record in records):
        end = end_of_text(tokenizer)
        return [_plain(record, end) for record in records]
    needed_by = "data.chat_template" if spec.chat_template else f"data.{split}"
    template = chat_template_of(tokenizer, spec.chat_template_arguments, needed_by=needed_by)
    return [
        _templated(record, template, spec, field=f"data.{split}:{number}")
        for number, record in enumerate(records, start=1)
    ]


def is_templated(records: Sequence[PreparedRecord]) -> bool:
    """Return whether training records were rendered by a chat template, which adds special tokens itself."""
    return any(isinstance(record, Rendered) and not record.special_tokens for record in records[:1])


def rendered_prompts(
    records: Sequence[ScoredRecord], tokenizer: "PreTrainedTokenizerBase", spec: DataSpec
) -> list[str]:
    """Render test prompts by the tokenizer's chat template, as vLLM does.

    Raises:
        ConfigError: the tokenizer has no chat template, or it fails.
    """
    template = chat_template_of(tokenizer, spec.chat_template_arguments, needed_by="evaluation.chat_template")
    prompts = list[str]()
    for number, record in enumerate(records, start=1):
        messages = (Message("user", prompt_of(record, spec)),)
        try:
            prompts.append(template.prompt(messages))
        except Exception as error:  # a template may raise anything
            raise template_error(error, messages, field=f"data.test:{number}") from error
    return prompts


def _plain(record: ReadRecord, end: str) -> PreparedRecord:
    match record:
        case Completion(prompt, completion):
            text = prompt + _ended(completion, end)
            return Rendered(text, ((len(prompt), len(text)),), special_tokens=True, follows_prompt=True)
        case Text(whole):
            text = _ended(whole, end)
            return Rendered(text, ((0, len(text)),), special_tokens=True)
        case Record():
            return record
        case Conversation():
            raise AssertionError("conversations are rendered by a template")


def _ended(text: str, end: str) -> str:
    return text if text.endswith(end) else text + end


def _messages(record: ReadRecord, spec: DataSpec) -> tuple[Message, ...]:
    match record:
        case Conversation(messages=messages):
            return messages
        case Text():
            raise ConfigError(
                "a text has no questions and answers, which a chat template needs",
                field="data.chat_template",
                value=True,
                remedy="Leave it out, or give records of another shape.",
            )
        case Record() | Completion():
            # The prompt exactly as lm-eval sends it. A space that separates a completion from it has no meaning here.
            return (Message("user", prompt_of(record, spec)), Message(ASSISTANT, completion_of(record, spec).strip()))


def _templated(record: ReadRecord, template: ChatTemplate, spec: DataSpec, *, field: str) -> Rendered:
    messages = _messages(record, spec)
    if isinstance(record, Conversation) and record.tools:
        template = template.with_tools(json.loads(record.tools))
    try:
        return template.training_text(messages, spec.loss_on)
    except Exception as error:  # a template may raise anything
        raise template_error(error, messages, field=field) from error
