"""Tokenization of records: prompt, completion, end-of-text token."""

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
    """The tokens of one training sample, and the number of them that form the prompt."""

    tokens: list[int]
    prompt_length: int


def prompt_of(record: Record, spec: DataSpec) -> str:
    """Return the prompt of a record."""
    return spec.prompt.replace("{question}", record.question)


def encode(
    records: Sequence[Record], tokenizer: "PreTrainedTokenizerBase", spec: DataSpec, *, special_tokens: bool = True
) -> list[Sample]:
    """Tokenize records.

    Prompt and completion are tokenized separately, so that the prompt's tokens are those that vLLM gets from its text.

    Args:
        records: Questions and answers.
        tokenizer: Tokenizer of the base model.
        spec: Templates of prompt and completion.
        special_tokens: Whether the prompt gets the special tokens that the tokenizer adds, such as a token for the
            beginning of a sequence. Evaluation does the same.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the model's tokenizer has no end-of-text token, so the model could not learn to end its answers",
            field="model",
            remedy="Use a model whose tokenizer defines eos_token.",
        )
    prompts = token_ids([prompt_of(record, spec) for record in records], tokenizer, special_tokens=special_tokens)
    answers = token_ids([spec.completion.replace("{answer}", record.answer) for record in records], tokenizer)
    return [
        Sample(prompt + answer + [tokenizer.eos_token_id], len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def token_ids(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", *, special_tokens: bool = False
) -> list[list[int]]:
    """Tokenize texts with or without the special tokens that the tokenizer adds."""
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=special_tokens, return_attention_mask=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def special_tokens_of(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, ...]:
    """Return the special tokens that the tokenizer adds to a text, in order."""
    encoded = tokenizer("x", return_special_tokens_mask=True, return_attention_mask=False)
    added = [
        token for token, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True) if special
    ]
    return tuple(tokenizer.convert_ids_to_tokens(added))
