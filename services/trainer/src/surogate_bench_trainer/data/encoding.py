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


def encode(
    records: Sequence[Record], tokenizer: "PreTrainedTokenizerBase", spec: DataSpec, *, special_tokens: bool = True
) -> list[Sample]:
    """Tokenize records.

    Prompt and completion are tokenized apart, so that the prompt's tokens are those that vLLM makes of its text.

    Args:
        records: Questions and answers.
        tokenizer: Of the base model.
        spec: How prompt and completion are made of them.
        special_tokens: Whether the prompt gets what the tokenizer adds, such as a token for the beginning of a
            sequence. Evaluation does likewise.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the model's tokenizer has no end-of-text token, so answers could not learn to end",
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
    """Tokenize texts, with or without the special tokens that the tokenizer adds."""
    if not texts:
        return []
    made = tokenizer(texts, add_special_tokens=special_tokens, return_attention_mask=False)
    ids: list[list[int]] = made["input_ids"]
    return ids


def special_tokens_of(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, ...]:
    """Tokens that the tokenizer adds to a text of its own accord, in their order."""
    made = tokenizer("x", return_special_tokens_mask=True, return_attention_mask=False)
    added = [each for each, special in zip(made["input_ids"], made["special_tokens_mask"], strict=True) if special]
    return tuple(tokenizer.convert_ids_to_tokens(added))
