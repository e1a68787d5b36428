"""Checks of the data: sample lengths against the limits of training and serving, and the format of test answers."""

from typing import TYPE_CHECKING

from surogate_bench.errors import ConfigError
from surogate_bench.specs import RecipeSweep
from surogate_bench_trainer.data.encoding import encode, prompt_of, token_ids
from surogate_bench_trainer.data.records import FINAL_ANSWER, Record
from surogate_bench_trainer.prepare.sources import Splits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_answers(test: list[Record]) -> None:
    """Check that every test answer ends with ``#### N``, which scoring requires.

    Raises:
        ConfigError: an answer does not. The message names the first such record.
    """
    for number, record in enumerate(test, start=1):
        if FINAL_ANSWER.search(record.answer) is None:
            raise ConfigError(
                "the answer does not end with '#### N', so nothing can be scored against it",
                field=f"data.test:{number}",
                value=record.answer[-40:],
                remedy="End every test answer with '#### ' and the number, as GSM8K does.",
            )


def check_lengths(
    splits: Splits, tokenizer: "PreTrainedTokenizerBase", sweep: RecipeSweep
) -> tuple[list[int], set[int]]:
    """Check samples against ``training.max_length``, and prompts with their answers against the server's limit.

    Returns:
        The number of tokens of each training sample, and the set of token ids in all samples and prompts.

    Raises:
        ConfigError: a limit is exceeded. The message names the longest sample and its length.
    """
    limit = sweep.training.max_length
    shortest, training, used = 0, list[int](), set[int]()
    for name in ("train", "validation"):
        samples = encode(splits[name], tokenizer, sweep.data)
        lengths = [len(sample.tokens) for sample in samples]
        used.update(*(sample.tokens for sample in samples))
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        if lengths[longest] > limit:
            over = sum(length > limit for length in lengths)
            raise ConfigError(
                f"{over} of {len(lengths)} {name} samples are longer than training.max_length; the longest, record "
                f"{longest + 1}, has {lengths[longest]} tokens",
                field="training.max_length",
                value=limit,
                remedy=f"Raise it to {lengths[longest]} or more, or remove those records: samples are never cut.",
            )
        if name == "train":
            training = lengths
            shortest = sum(sorted(lengths)[: sweep.evaluation.num_fewshot])
    used.update(*_check_prompts(splits["test"], tokenizer, sweep, shots=shortest))
    return training, used


def _check_prompts(
    test: list[Record], tokenizer: "PreTrainedTokenizerBase", sweep: RecipeSweep, *, shots: int
) -> list[list[int]]:
    """Check and return the prompts' tokens; ``shots`` is the least number of tokens of the few-shot examples."""
    prompts = token_ids([prompt_of(record, sweep.data) for record in test], tokenizer, special_tokens=True)
    longest = max(range(len(prompts)), key=lambda index: len(prompts[index]))
    needed = shots + len(prompts[longest]) + sweep.evaluation.max_gen_toks
    if needed > sweep.serving.max_model_len:
        raise ConfigError(
            f"the prompt of test record {longest + 1} and evaluation.max_gen_toks "
            f"({sweep.evaluation.max_gen_toks}) need {needed} tokens together",
            field="serving.max_model_len",
            value=sweep.serving.max_model_len,
            remedy=f"Raise it to {needed} or more, or lower evaluation.max_gen_toks.",
        )
    return prompts
