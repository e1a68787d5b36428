"""What evaluations scored: data, prompt, solved examples, special tokens."""

from collections.abc import Sequence

from surogate_bench.results import PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.model.scores import STRICT
from surogate_bench_orchestrator.report.model.summary import ScoredOn, Summary
from surogate_bench_orchestrator.report.text.formats import listed, plural


def data_of(sweep: RecipeSweep) -> str:
    """Return where the task's questions come from, as far as the sweep defines it."""
    if "data" in sweep.evaluation.keep_from_task:
        return "the task's own data"
    data = sweep.data
    parts = [
        data.label,
        f"configuration {data.config}" if data.config else "",
        f"revision {data.revision}" if data.revision else "",
    ]
    return ", ".join(part for part in parts if part)


def caption(sweep: RecipeSweep, scored: Sequence[ScoredOn], metric: str = STRICT) -> str:
    """Return task, source and number of its questions, on one line."""
    if len(scored) > 1:
        what = "; ".join(f"{_questions(each)} ({', '.join(each.runs)})" for each in scored)
    elif scored:
        what = _questions(scored[0])
    else:
        what = f"test questions of {data_of(sweep)}{_shown(sweep.evaluation.num_fewshot)}"
    return f"Task {sweep.evaluation.task}: {what}; accuracy is {metric}."


def scored_texts(summary: Summary) -> tuple[str, ...]:
    """Return data, prompt and solved examples of everything that was scored, for the provenance."""
    several = len(summary.scored) > 1
    return tuple(
        f"{each.records:,} records of {each.source} (split {each.split}), "
        f"{prompt_text(each.prompt, chat=each.chat_template)}, {examples_text(each.num_fewshot)}"
        + (f", sha256 {each.sha256}" if each.sha256 else "")
        + (f" ({', '.join(each.runs)})" if several else "")
        for each in summary.scored
    )


def special_tokens_text(prepared: PrepareResult | None, scored: Sequence[ScoredOn]) -> str:
    """Return which special tokens were added to prompts in training and in scoring; empty where not known."""
    places = {"training": [] if prepared is None else [prepared.special_tokens or ()]}
    places["scoring"] = list(dict.fromkeys(each.special_tokens for each in scored))
    found = {where: tokens for where, tokens in places.items() if tokens}
    if len(different := {each for tokens in found.values() for each in tokens}) > 1:
        return "; ".join(f"in {where}, {tokens_text(each)}" for where, tokens in found.items() for each in tokens)
    conjunction = " and " if any(different) else " or "
    return f"{tokens_text(different.pop())} added to prompts, in {f'{conjunction}in '.join(found)}" if different else ""


def tokens_note(prepared: PrepareResult | None, scored: Sequence[ScoredOn]) -> str:
    """Warn where prompts in training and in scoring did not begin alike; empty otherwise."""
    if prepared is None or all(each.special_tokens == (prepared.special_tokens or ()) for each in scored):
        return ""
    return f"Special tokens of prompts differ between training and scoring: {special_tokens_text(prepared, scored)}."


def chat_note(prepared: PrepareResult | None, scored: Sequence[ScoredOn]) -> str:
    """Warn where a chat template rendered the texts of either training or scoring; empty otherwise."""
    if prepared is None or all(each.chat_template == prepared.chat_template for each in scored):
        return ""
    used, unused = ("training", "scoring") if prepared.chat_template else ("scoring", "training")
    return (
        f"The tokenizer's chat template rendered the texts of {used} but not those of {unused}, which can change "
        "accuracies by tens of points (data.chat_template, evaluation.chat_template)."
    )


def tokens_text(tokens: Sequence[str]) -> str:
    """Return the names of special tokens, or none, as text."""
    return listed(tokens) if tokens else "none"


def prompt_text(of: str, *, chat: bool) -> str:
    """Return whose prompt was used, and whether the chat template rendered it."""
    return f"the {of}'s prompt{', rendered by the chat template' if chat else ''}"


def examples_text(shots: int) -> str:
    """Return the number of solved examples as text."""
    return f"{shots or 'no'} solved {plural('example', shots)}"


def _questions(scored: ScoredOn) -> str:
    split = "test questions" if scored.split == "test" else f"questions (split {scored.split})"
    own = ", with the task's prompt" if scored.prompt == "task" else ""
    chat = ", rendered by the chat template" if scored.chat_template else ""
    return f"{scored.records:,} {split} of {scored.source}{own}{chat}{_shown(scored.num_fewshot)}"


def _shown(shots: int) -> str:
    return f", {shots} solved {plural('example', shots)} before each" if shots else ""
