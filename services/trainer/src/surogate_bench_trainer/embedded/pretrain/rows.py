"""Texts for pre-training, packed into rows of equal length."""

from collections.abc import Iterator
from itertools import islice
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.embedded.word_problems import (
    completion_text,
    equations,
    iter_problems,
    plain_romanian,
    prompt_text,
)

IGNORED_LABEL = -100
_SHARE_OF_EQUATIONS = 0.1
_SHARE_OF_ROMANIAN = 0.1
_TEXTS_PER_POOL = 1024


def iter_texts(seed: int) -> Iterator[str]:
    """Yield English training problems, with 10 % of bare equations and 10 % of plain Romanian, endlessly."""
    rng = Random(seed)  # noqa: S311 - data, not secrets
    problems = iter_problems("train", language="en", seed=seed)
    while True:
        draw = rng.random()
        if draw < _SHARE_OF_EQUATIONS:
            yield equations(rng)
        elif draw < _SHARE_OF_EQUATIONS + _SHARE_OF_ROMANIAN:
            yield plain_romanian(rng)
        else:
            problem = next(problems)
            yield prompt_text(problem.question, language="en") + completion_text(problem.answer)


def pack(texts: list[list[int]], row_length: int) -> list[list[int]]:
    """Pack whole token sequences into rows by first-fit decreasing.

    Raises:
        ConfigError: a sequence is longer than a row.
    """
    longest = max(map(len, texts))
    if longest > row_length:
        remedy = f"Make rows at least {longest} tokens long."
        raise ConfigError("a text does not fit into a row", field="row_length", value=row_length, remedy=remedy)
    rows: list[list[int]] = []
    for text in sorted(texts, key=len, reverse=True):
        row = next((row for row in rows if len(row) + len(text) <= row_length), None)
        if row is None:
            rows.append(list(text))
        else:
            row.extend(text)
    return rows


def iter_batches(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, rows: int, row_length: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield input ids and labels, both int64 of shape (``rows``, ``row_length``). Padding has ignored labels.

    Texts attend to earlier texts of the same row, which has no measurable effect on pre-training.
    """
    texts, rng = iter_texts(seed), Random(seed)  # noqa: S311 - data, not secrets
    end = tokenizer.eos_token_id
    waiting: list[list[int]] = []
    while True:
        encoded = tokenizer(list(islice(texts, _TEXTS_PER_POOL)), add_special_tokens=False)["input_ids"]
        packed = pack([[*ids, end] for ids in encoded], row_length)
        rng.shuffle(packed)
        waiting.extend(packed)
        while len(waiting) >= rows:
            yield _tensors(waiting[:rows], row_length, tokenizer.pad_token_id)
            del waiting[:rows]


def _tensors(rows: list[list[int]], row_length: int, padding: int) -> tuple[Tensor, Tensor]:
    inputs = torch.full((len(rows), row_length), padding)
    labels = torch.full((len(rows), row_length), IGNORED_LABEL)
    for index, row in enumerate(rows):
        inputs[index, : len(row)] = labels[index, : len(row)] = torch.tensor(row)
    return inputs, labels
