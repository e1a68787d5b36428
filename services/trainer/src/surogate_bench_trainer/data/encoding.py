"""Records as tokens: prompt, completion, end-of-text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surogate_bench.errors import ConfigError
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.records import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sample: its tokens, and how many of them are the prompt."""

    tokens: list[int]
    prompt_length: int


def prompt_of(record: Record, spec: DataSpec) -> str:
    """What the model is shown."""
    return spec.prompt.replace("{question}", record.question)


def encode(records: Sequence[Record], tokenizer: "PreTrainedTokenizerBase", spec: DataSpec) -> list[Sample]:
    """Tokenize records.

    Prompt and completion are tokenized apart, so that the prompt's tokens are those that evaluation sends, and without
    special tokens in front, as lm-eval sends them.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the model's tokenizer has no end-of-text token, so answers could not learn to end",
            field="model",
            remedy="Use a model whose tokenizer defines eos_token.",
        )
    prompts = token_ids([prompt_of(record, spec) for record in records], tokenizer)
    answers = token_ids([spec.completion.replace("{answer}", record.answer) for record in records], tokenizer)
    return [
        Sample(prompt + answer + [tokenizer.eos_token_id], len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def token_ids(texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Tokenize texts without special tokens."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids
