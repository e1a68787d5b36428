"""Tokenization of prepared records: prompt, completion, end-of-text token; or a text with the parts that count.

A tokenizer without an end-of-text token appends none: a sample then ends with its completion.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, zip_longest
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from surogate_bench.errors import ConfigError
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.records import Completion, PreparedRecord, Rendered, ScoredRecord

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

_AT_ONCE = 1000
"""Records that are tokenized in one call: offsets of characters need much memory."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The tokens of one training sample."""

    tokens: list[int]
    prompt_length: int
    """Number of tokens before the first that counts."""
    counted: tuple[tuple[int, int], ...] | None = None
    """Start and end (exclusive) of the tokens that count, ascending; all after the prompt if None."""

    def ranges(self, loss_on: Literal["completion", "all"]) -> tuple[tuple[int, int], ...]:
        """Return start and end of the tokens that count in the loss; the first token follows none, so never counts."""
        if loss_on == "all":
            return ((1, len(self.tokens)),)
        counted = self.counted or ((self.prompt_length, len(self.tokens)),)
        return tuple((max(start, 1), end) for start, end in counted if end > 1)

    def count(self, loss_on: Literal["completion", "all"]) -> int:
        """Return the number of tokens that count in the loss."""
        return sum(end - start for start, end in self.ranges(loss_on))


def prompt_of(record: ScoredRecord, spec: DataSpec) -> str:
    """Return the prompt of a record."""
    return record.prompt if isinstance(record, Completion) else spec.prompt.replace("{question}", record.question)


def completion_of(record: ScoredRecord, spec: DataSpec) -> str:
    """Return the completion that follows the prompt of a record."""
    return record.completion if isinstance(record, Completion) else spec.completion.replace("{answer}", record.answer)


def encode(
    records: Sequence[PreparedRecord],
    tokenizer: "PreTrainedTokenizerBase",
    spec: DataSpec,
    *,
    special_tokens: bool = True,
) -> list[Sample]:
    """Tokenize records; see :func:`encoded`."""
    return list(encoded(records, tokenizer, spec, special_tokens=special_tokens))


def encoded(
    records: Sequence[PreparedRecord],
    tokenizer: "PreTrainedTokenizerBase",
    spec: DataSpec,
    *,
    special_tokens: bool = True,
) -> Iterator[Sample]:
    """Tokenize records one after another.

    Prompt and completion are tokenized separately, so that the prompt's tokens are those that vLLM gets from its text.
    A rendered text is tokenized as a whole.

    Args:
        records: Prepared records.
        tokenizer: Tokenizer of the base model.
        spec: Templates of prompt and completion.
        special_tokens: Whether the prompt gets the special tokens that the tokenizer adds, such as a token for the
            beginning of a sequence. Evaluation does the same.

    Raises:
        ConfigError: the tokenizer does not report which characters a token covers.
    """
    for start in range(0, len(records), _AT_ONCE):
        for is_rendered, group in groupby(records[start : start + _AT_ONCE], lambda each: isinstance(each, Rendered)):
            if is_rendered:
                yield from _encode_rendered([each for each in group if isinstance(each, Rendered)], tokenizer)
            else:
                scored = [each for each in group if not isinstance(each, Rendered)]
                yield from _encode_scored(scored, tokenizer, spec, special_tokens=special_tokens)


def _encode_scored(
    records: Sequence[ScoredRecord], tokenizer: "PreTrainedTokenizerBase", spec: DataSpec, *, special_tokens: bool
) -> Iterator[Sample]:
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    prompts = token_ids([prompt_of(record, spec) for record in records], tokenizer, special_tokens=special_tokens)
    answers = token_ids([completion_of(record, spec) for record in records], tokenizer)
    for prompt, answer in zip(prompts, answers, strict=True):
        yield Sample(prompt + answer + end, len(prompt))


def _encode_rendered(records: Sequence[Rendered], tokenizer: "PreTrainedTokenizerBase") -> Iterator[Sample]:
    if not tokenizer.is_fast:
        raise ConfigError(
            "the model's tokenizer does not report which characters a token covers, so it is not known which tokens "
            "count",
            field="model",
            value=type(tokenizer).__name__,
            remedy="Use a model with a tokenizer.json, or data of questions and answers.",
        )
    for added, group in groupby(records, lambda record: record.special_tokens):
        yield from _encode_texts(list(group), tokenizer, special_tokens=added)


def _encode_texts(
    records: Sequence[Rendered], tokenizer: "PreTrainedTokenizerBase", *, special_tokens: bool
) -> Iterator[Sample]:
    batch = tokenizer(
        [record.text for record in records], add_special_tokens=special_tokens, return_attention_mask=False
    )
    following = [record for record in records if record.follows_prompt]
    prompts = [record.text[: record.counted[0][0]] for record in following]
    alone = iter(token_ids(prompts, tokenizer, special_tokens=special_tokens))
    for record, tokens, encoding in zip(records, batch["input_ids"], batch.encodings, strict=True):
        prompt = next(alone) if record.follows_prompt else None
        counted = _counted(record, tokens, encoding, prompt)
        yield Sample(tokens, counted[0][0], counted)


def _counted(
    record: Rendered, tokens: Sequence[int], encoding: "Encoding", prompt: Sequence[int] | None
) -> tuple[tuple[int, int], ...]:
    """Return start and end of the tokens that count; ``prompt`` are the tokens of the prompt alone."""
    length = len(record.text)
    if prompt is None:
        return tuple(_covering(span, encoding, len(tokens), length) for span in record.counted)
    if tokens[: len(prompt)] == prompt and record.counted[0][1] >= length:
        return ((len(prompt), len(tokens)),)  # the usual case, for which no place of a token is looked up
    start, end = _covering(record.counted[0], encoding, len(tokens), length)
    return ((min(start, _shared(prompt, tokens)), end),)


def _shared(prompt: Sequence[int], tokens: Sequence[int]) -> int:
    """Return the number of tokens that a prompt has alone and at the beginning of a text."""
    if tokens[: len(prompt)] == prompt:
        return len(prompt)
    return next(index for index, (one, other) in enumerate(zip_longest(prompt, tokens)) if one != other)


def _covering(span: tuple[int, int], encoding: "Encoding", tokens: int, length: int) -> tuple[int, int]:
    """Return the range of tokens that cover a part of a text; at the end of the text with all tokens that follow.

    A token that is only partly inside counts: the model has to generate it.

    Args:
        span: Start and end (exclusive) of the part, in characters.
        encoding: The tokenized text.
        tokens: Number of its tokens.
        length: Number of its characters.
    """
    start, end = span
    first = encoding.char_to_token(start)
    last = tokens if end >= length else encoding.char_to_token(end)
    if first is None or last is None:  # no token covers the character, as where blanks are dropped
        return _covering_by_offsets(span, encoding.offsets, length)
    while last < tokens:
        place = encoding.token_to_chars(last)
        if place is None:
            return _covering_by_offsets(span, encoding.offsets, length)
        if place[0] >= end:
            break
        last += 1
    return first, last


def _covering_by_offsets(span: tuple[int, int], offsets: Sequence[tuple[int, int]], length: int) -> tuple[int, int]:
    """Do the same by the characters of every token, which takes longer."""
    start, end = span
    first = bisect_right(_ascending(offsets, 1), start)
    last = len(offsets) if end >= length else bisect_left(_ascending(offsets, 0), end)
    return first, last


def _ascending(offsets: Sequence[tuple[int, int]], side: int) -> list[int]:
    """Return starts or ends of tokens; added tokens, which cover nothing (0, 0), get the largest before them."""
    return list(accumulate(map(itemgetter(side), offsets), max))


def end_of_text(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the end-of-text token; an empty text if the tokenizer has none."""
    return "" if tokenizer.eos_token_id is None else str(tokenizer.eos_token)


def token_ids(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", *, special_tokens: bool = False
) -> list[list[int]]:
    """Tokenize texts with or without the special tokens that the tokenizer adds."""
    if not texts:
        return []
    batch = tokenizer(texts, add_special_tokens=special_tokens, return_attention_mask=False)
    ids: list[list[int]] = batch["input_ids"]
    return ids


def special_tokens_of(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, ...]:
    """Return the special tokens that the tokenizer adds to a text, in order."""
    marked = tokenizer("x", return_special_tokens_mask=True, return_attention_mask=False)
    added = [
        token for token, special in zip(marked["input_ids"], marked["special_tokens_mask"], strict=True) if special
    ]
    return tuple(tokenizer.convert_ids_to_tokens(added))
