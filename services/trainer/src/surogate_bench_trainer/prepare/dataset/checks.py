"""Checks of the data: sample lengths against the limits of training and serving, and the format of test answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.content import MULTIPLE_CHOICE, output_type
from surogate_bench.inputs.reading.detection import FINAL_ANSWER
from surogate_bench.inputs.task_files import TaskFolders
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench_trainer.data.chat.templates import chat_template_of
from surogate_bench_trainer.data.encoding import encoded, prompt_of, token_ids
from surogate_bench_trainer.data.records import (
    Completion,
    Conversation,
    PreparedRecord,
    Rendered,
    ScoredRecord,
)
from surogate_bench_trainer.data.rendering import is_templated, rendered_prompts
from surogate_bench_trainer.prepare.dataset.splitting import Splits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


PreparedSplits = Mapping[str, Sequence[PreparedRecord]]
"""``train``, ``validation`` and, unless the task has its own data, ``test``."""


_ROOM_OF_CHOICE = 2
"""Tokens behind a prompt of multiple choice at least: one of the choice, and one that vLLM generates."""


def check_answers(test: Sequence[ScoredRecord], evaluation: EvaluationSpec) -> None:
    """Check that every test answer ends with ``#### N``, which scoring requires.

    A task of the user's own may score answers of any form; its check scores the reference answers before training.

    Raises:
        ConfigError: an answer does not. The message names the first such record.
    """
    if evaluation.tasks_dir is not None:
        return
    for number, record in enumerate(test, start=1):
        answer = record.completion if isinstance(record, Completion) else record.answer
        if FINAL_ANSWER.search(answer) is None:
            raise ConfigError(
                "the answer does not end with '#### N', so nothing can be scored against it",
                field=f"data.test:{number}",
                value=answer[-40:],
                remedy="End every test answer with '#### ' and the number, as GSM8K does, or score by a task of your "
                "own (evaluation.tasks_dir).",
            )


def check_shots(train: Sequence[PreparedRecord], sweep: RecipeSweep) -> None:
    """Check that solved examples can be shown, which are training records with question and answer.

    Raises:
        ConfigError: they cannot.
    """
    shots, kept = sweep.evaluation.num_fewshot, sweep.evaluation.keep_from_task
    if (shots or "num_fewshot" in kept) and "data" not in kept and isinstance(train[0], Rendered):
        raise ConfigError(
            "solved examples are taken from training records with question and answer, and these are prepared as text",
            field="evaluation.num_fewshot" if shots else "evaluation.keep_from_task",
            value=shots or list(kept),
            remedy="Show none (num_fewshot: 0, not kept from the task), or let the task keep its own data and prompt.",
        )


def check_weights(splits: Splits, sweep: RecipeSweep) -> None:
    """Check that no message has weight 0 where every token counts.

    Raises:
        ConfigError: one has.
    """
    if sweep.training.loss_on != "all":
        return
    for name, records in splits.items():
        for number, record in enumerate(records, start=1):
            if isinstance(record, Conversation) and not all(message.is_learned for message in record.messages):
                raise ConfigError(
                    "has a message of weight 0, but training.loss_on is all, which includes every message",
                    field=f"data.{name}:{number}",
                    remedy="Remove training.loss_on, or the weights.",
                )


def check_template_arguments(train: Sequence[PreparedRecord], sweep: RecipeSweep) -> None:
    """Check that a chat template is rendered if arguments are given for it.

    Raises:
        ConfigError: none is.
    """
    given = sweep.data.chat_template_arguments
    if given and not is_templated(train) and not sweep.evaluation.chat_template:
        raise ConfigError(
            "neither training nor scoring renders a chat template, so they would have no effect",
            field="data.chat_template_arguments",
            value=", ".join(given),
            remedy="Remove them, or set data.chat_template or evaluation.chat_template.",
        )


def header_warnings(tokenizer: "PreTrainedTokenizerBase", sweep: RecipeSweep) -> tuple[str, ...]:
    """Warn if prompts for scoring end without the header of the answer, which training does not count either."""
    if not sweep.evaluation.chat_template:
        return ()
    arguments = sweep.data.chat_template_arguments
    template = chat_template_of(tokenizer, arguments, needed_by="evaluation.chat_template")
    try:
        lacking = template.lacks_header()
    except Exception:  # noqa: BLE001 - a template may raise anything; records that it fails on are reported by number
        return ()
    if not lacking:
        return ()
    return (
        "the model's chat template ignores add_generation_prompt: in scoring, the model must write the header of its "
        "answer itself, which training does not teach it",
    )


@dataclass(frozen=True, slots=True)
class SampleSizes:
    """Tokens of each sample of a split, and how many of them are included in the loss."""

    tokens: list[int] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)


def check_lengths(
    splits: PreparedSplits, tokenizer: "PreTrainedTokenizerBase", sweep: RecipeSweep
) -> tuple[SampleSizes, set[int]]:
    """Check samples against ``training.max_length``, and prompts with their answers against the server's limit.

    Returns:
        The sizes of the training samples, and the set of token ids in all samples and prompts.

    Raises:
        ConfigError: a limit is exceeded, or a sample has nothing to learn. The message names the sample.
    """
    if sweep.evaluation.chat_template:
        chat_template_of(tokenizer, sweep.data.chat_template_arguments, needed_by="evaluation.chat_template")
    used = set[int]()
    training = _check_samples("train", splits, tokenizer, sweep, used)
    _check_samples("validation", splits, tokenizer, sweep, used)
    shortest = sum(sorted(training.tokens)[: sweep.evaluation.num_fewshot])
    test = [record for record in splits.get("test", ()) if not isinstance(record, Rendered)]
    if test:
        used.update(*check_prompts(test, tokenizer, sweep, shots=shortest))
    return training, used


def _check_samples(
    name: str, splits: PreparedSplits, tokenizer: "PreTrainedTokenizerBase", sweep: RecipeSweep, used: set[int]
) -> SampleSizes:
    """Return the sizes of the samples of a split, and add their tokens to ``used``."""
    limit, sizes = sweep.training.max_length, SampleSizes()
    for sample in encoded(splits[name], tokenizer, sweep.data):
        sizes.tokens.append(len(sample.tokens))
        sizes.counted.append(sample.count(sweep.training.loss_on))
        used.update(sample.tokens)
    if 0 in sizes.counted:
        raise ConfigError(
            "no token of this sample is included in the loss, so nothing could be learned from it",
            field=f"data.{name}:{sizes.counted.index(0) + 1}",
            remedy="Remove the record, or give it a longer completion.",
        )
    lengths = sizes.tokens
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
    return sizes


def check_prompts(
    test: Sequence[ScoredRecord], tokenizer: "PreTrainedTokenizerBase", sweep: RecipeSweep, *, shots: int
) -> list[list[int]]:
    """Check and return the prompts' tokens; ``shots`` is the least number of tokens of the few-shot examples."""
    chooses = is_of_choice(sweep.evaluation)
    prompts = prompt_tokens(test, tokenizer, sweep)
    longest = max(range(len(prompts)), key=lambda index: len(prompts[index]))
    room = _ROOM_OF_CHOICE if chooses else sweep.evaluation.max_gen_toks
    if (needed := shots + len(prompts[longest]) + room) > sweep.serving.max_model_len:
        answer = "a choice" if chooses else f"evaluation.max_gen_toks ({room})"
        raise ConfigError(
            f"the prompt of test record {longest + 1} of {sweep.evaluation.task} and {answer} need {needed} tokens "
            "together",
            field="serving.max_model_len",
            value=sweep.serving.max_model_len,
            remedy=f"Raise it to {needed} or more" + ("." if chooses else ", or lower evaluation.max_gen_toks."),
        )
    return prompts


def prompt_tokens(
    test: Sequence[ScoredRecord], tokenizer: "PreTrainedTokenizerBase", sweep: RecipeSweep
) -> list[list[int]]:
    """Return the tokens that vLLM computes for the prompts of test records.

    Raises:
        ConfigError: the chat template fails on one.
    """
    chat = sweep.evaluation.chat_template and not is_of_choice(sweep.evaluation)
    texts = (
        rendered_prompts(test, tokenizer, sweep.data) if chat else [prompt_of(record, sweep.data) for record in test]
    )
    return token_ids(texts, tokenizer, special_tokens=not chat)


def is_of_choice(evaluation: EvaluationSpec) -> bool:
    """Return whether a task is of multiple choice; False where only lm-eval, which is not here, has its file."""
    file = TaskFolders.of(evaluation.tasks_dir).own(evaluation.task)
    return file is not None and output_type(file) == MULTIPLE_CHOICE
