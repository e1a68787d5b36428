"""What evaluations scored, and whether they scored the same."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from surogate_bench.errors import PermanentError
from surogate_bench.results import EvalResult, PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.figures import FLEXIBLE, STRICT
from surogate_bench_orchestrator.report.formats import listed, plural
from surogate_bench_orchestrator.report.records import EvalRecord, RunRecord, SweepRecords
from surogate_bench_orchestrator.report.summary import ScoredOn, Summary


def scored_on(runs: Iterable[RunRecord], sweep: RecipeSweep) -> tuple[ScoredOn, ...]:
    """Return what the runs were scored on, each once, with the names of its runs.

    What an earlier version did not record is taken from the sweep.
    """
    found: list[ScoredOn] = []
    recorded_first = sorted(
        (run for run in runs if run.evaluation is not None),
        key=lambda run: run.evaluation is not None and run.evaluation.result.scored is None,
    )
    for run in recorded_first:
        assert run.evaluation is not None  # noqa: S101 - filtered above
        one = _scored_on(run.evaluation.result, sweep)
        same = next((other for other in found if _is_same(one, other)), None)
        if same is None:
            found.append(one.model_copy(update={"runs": (run.name,)}))
        else:
            found[found.index(same)] = same.model_copy(update={"runs": (*same.runs, run.name)})
    return tuple(found)


def require_same_data(evaluations: Sequence[EvalRecord]) -> None:
    """Refuse to put together what was scored on different data.

    Raises:
        PermanentError: records, prompt, solved examples or special tokens differ.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        ours, theirs = _conditions(first.result), _conditions(other.result)
        differing = [name for name in ours if name in theirs and ours[name].value != theirs[name].value]
        if differing:
            raise PermanentError(
                f"{first.label} was scored with {listed([ours[name].text for name in differing])}, "
                f"{other.label} with {listed([theirs[name].text for name in differing])}"
            )


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


def metrics_of(records: SweepRecords) -> tuple[str, str | None]:
    """Return what a task's accuracy is, and its second metric if it has one, as the results name them."""
    found = next((run.evaluation.result for run in records.every_run() if run.evaluation), None)
    if found is None or found.metric is None:
        return STRICT, FLEXIBLE
    return found.metric, found.second_metric


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
        f"{_prompt(each.prompt, chat=each.chat_template)}, {_examples(each.num_fewshot)}"
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
        return "; ".join(f"in {where}, {_tokens(each)}" for where, tokens in found.items() for each in tokens)
    conjunction = " and " if any(different) else " or "
    return f"{_tokens(different.pop())} added to prompts, in {f'{conjunction}in '.join(found)}" if different else ""


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


def _scored_on(result: EvalResult, sweep: RecipeSweep) -> ScoredOn:
    tokens = result.special_tokens or ()
    if (scored := result.scored) is None:
        return ScoredOn(
            source=data_of(sweep),
            split="test",
            records=result.samples,
            sha256="",
            prompt="task" if "prompt" in sweep.evaluation.keep_from_task else "sweep",
            num_fewshot=sweep.evaluation.num_fewshot,
            special_tokens=tokens,
            runs=(),
        )
    source = data_of(sweep) if scored.source == sweep.data.label else scored.source
    return ScoredOn(**(scored.model_dump() | {"source": source}), special_tokens=tokens, runs=())


def _is_same(one: ScoredOn, other: ScoredOn) -> bool:
    """Return whether both have the same content or, where one is not known, the same names."""
    unknown = not one.sha256 or not other.sha256
    hidden = {"runs"} | ({"sha256"} if unknown else {"source", "split"})
    return one.model_dump(exclude=hidden) == other.model_dump(exclude=hidden)


class _Condition(NamedTuple):
    """What has to be equal in results that are compared, and its name in messages."""

    value: object
    text: str


def _conditions(result: EvalResult) -> dict[str, _Condition]:
    """Return the conditions of an evaluation that were recorded."""
    tokens = result.special_tokens or ()
    found = {
        "special tokens": _Condition(tokens, f"{_tokens(tokens) if tokens else 'no special tokens'} added to prompts")
    }
    if (scored := result.scored) is None:
        return found
    records = f"{scored.records:,} records of {scored.source} (sha256 {scored.sha256[:12]})"
    return {
        "records": _Condition(scored.sha256, records),
        "prompt": _Condition((scored.prompt, scored.chat_template), _prompt(scored.prompt, chat=scored.chat_template)),
        "solved examples": _Condition(scored.num_fewshot, _examples(scored.num_fewshot)),
    } | found


def _questions(scored: ScoredOn) -> str:
    split = "test questions" if scored.split == "test" else f"questions (split {scored.split})"
    own = ", with the task's prompt" if scored.prompt == "task" else ""
    chat = ", rendered by the chat template" if scored.chat_template else ""
    return f"{scored.records:,} {split} of {scored.source}{own}{chat}{_shown(scored.num_fewshot)}"


def _shown(shots: int) -> str:
    return f", {shots} solved {plural('example', shots)} before each" if shots else ""


def _tokens(tokens: Sequence[str]) -> str:
    return listed(tokens) if tokens else "none"


def _prompt(of: str, *, chat: bool) -> str:
    return f"the {of}'s prompt{', rendered by the chat template' if chat else ''}"


def _examples(shots: int) -> str:
    return f"{shots or 'no'} solved {plural('example', shots)}"
