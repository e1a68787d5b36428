"""Samples and prompts as the model receives them, as text."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal

from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.stages.inspection import ShownSample, TaskPrompt, TextPart
from surogate_bench_trainer.data.encoding import Sample, encode
from surogate_bench_trainer.data.records import Completion, Record, ScoredRecord
from surogate_bench_trainer.prepare.checking import Checked
from surogate_bench_trainer.prepare.dataset.checks import is_of_choice, prompt_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OWN_DATA = "It scores data of its own, which lm-eval reads and checks when the sweep starts."
_OWN_PROMPT = "Its prompt is the task's own, which lm-eval renders."


def shown_samples(checked: Checked, sweep: RecipeSweep) -> tuple[ShownSample, ...]:
    """Return the first sample, one of median length, and the longest; each once."""
    lengths = checked.sizes.tokens
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    longest = lengths.index(lengths[by_length[-1]])  # the first of several, which may be shown already
    chosen = {"first": 0, "typical": by_length[(len(by_length) - 1) // 2], "longest": longest}
    return tuple(
        _shown(checked, sweep, index, tuple(why for why, other in chosen.items() if other == index))
        for index in dict.fromkeys(chosen.values())
    )


def _shown(checked: Checked, sweep: RecipeSweep, index: int, chosen: tuple[str, ...]) -> ShownSample:
    (sample,) = encode(checked.splits["train"][index : index + 1], checked.tokenizer, sweep.data)
    loss_on = sweep.training.loss_on
    return ShownSample(
        record=index + 1,
        chosen=chosen,
        tokens=len(sample.tokens),
        counted=sample.count(loss_on),
        parts=parts_of(sample, checked.tokenizer, loss_on),
    )


def parts_of(
    sample: Sample, tokenizer: "PreTrainedTokenizerBase", loss_on: Literal["completion", "all"]
) -> tuple[TextPart, ...]:
    """Return the text of a sample in parts that are included in the loss, or not.

    A character of which several tokens hold a part belongs to the last of them.
    """
    ranges = sample.ranges(loss_on)
    cuts = sorted({0, len(sample.tokens), *(cut for both in ranges for cut in both)})
    whole = _text_of(sample.tokens, tokenizer)
    # Decoded from the start every time: a decoder may treat the first token of a text in its own way.
    beginnings = (_shared(_text_of(sample.tokens[:cut], tokenizer), whole) for cut in cuts[:-1])
    places = [*accumulate(beginnings, max), len(whole)]
    return tuple(
        TextPart(text=whole[start:end], counts=any(first <= cut < last for first, last in ranges))
        for cut, (start, end) in zip(cuts, pairwise(places), strict=False)
    )


def _shared(start: str, text: str) -> int:
    """Return the length of the common beginning of two texts; an incomplete character was decoded as U+FFFD."""
    return next(
        (index for index, (one, other) in enumerate(zip(start, text, strict=False)) if one != other), len(start)
    )


def shown_prompts(checked: Checked, sweep: RecipeSweep) -> tuple[TaskPrompt, ...]:
    """Return the first prompt of every task, where it is the sweep's; the primary task first."""
    test = [record for record in checked.splits.get("test", ()) if isinstance(record, Record | Completion)]
    further = sweep.evaluation.further_tasks
    return (
        _prompt(test, checked, sweep),
        *(_prompt(checked.tasks.get(name, ()), checked, sweep.of_task(name)) for name in further),
    )


def _prompt(records: Sequence[ScoredRecord], checked: Checked, sweep: RecipeSweep) -> TaskPrompt:
    evaluation = sweep.evaluation
    scored = records[: evaluation.limit]
    is_own = {"data", "prompt"} & set(evaluation.keep_from_task)
    prompts = [] if is_own else prompt_tokens(scored, checked.tokenizer, sweep)
    return TaskPrompt(
        task=evaluation.task,
        records=None if "data" in evaluation.keep_from_task else len(scored),
        prompt=_text_of(prompts[0], checked.tokenizer) if prompts else None,
        tokens=len(prompts[0]) if prompts else None,
        longest=max(map(len, prompts), default=None),
        notes=tuple(_notes(evaluation)),
    )


def _notes(evaluation: EvaluationSpec) -> Iterator[str]:
    kept = evaluation.keep_from_task
    if "data" in kept:
        yield _OWN_DATA
    elif "prompt" in kept:
        yield _OWN_PROMPT
    if "num_fewshot" in kept:
        yield "Solved examples precede it, as defined in the task's own file."
    elif evaluation.num_fewshot:
        yield f"{evaluation.num_fewshot} solved examples, chosen by lm-eval, precede it."
    if is_of_choice(evaluation):
        yield "Each choice is appended to it, and none is generated."
    elif evaluation.chat_template:
        yield "Prompts are sent as messages of the user, which the server renders by the chat template."


def _text_of(tokens: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))
