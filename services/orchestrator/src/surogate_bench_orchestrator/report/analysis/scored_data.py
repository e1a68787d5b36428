"""What evaluations scored, and whether they scored the same."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from surogate_bench.errors import PermanentError
from surogate_bench.results import EvalResult
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.analysis.records import EvalRecord, RunRecord, SweepRecords
from surogate_bench_orchestrator.report.model.scores import FLEXIBLE, STRICT
from surogate_bench_orchestrator.report.model.summary import ScoredOn
from surogate_bench_orchestrator.report.text.formats import listed
from surogate_bench_orchestrator.report.text.scored_data import data_of, examples_text, prompt_text, tokens_text


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


def metrics_of(records: SweepRecords) -> tuple[str, str | None]:
    """Return what a task's accuracy is, and its second metric if it has one, as the results name them."""
    found = next((run.evaluation.result for run in records.every_run() if run.evaluation), None)
    if found is None or found.metric is None:
        return STRICT, FLEXIBLE
    return found.metric, found.second_metric


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
        "special tokens": _Condition(
            tokens, f"{tokens_text(tokens) if tokens else 'no special tokens'} added to prompts"
        )
    }
    if (scored := result.scored) is None:
        return found
    records = f"{scored.records:,} records of {scored.source} (sha256 {scored.sha256[:12]})"
    prompt = prompt_text(scored.prompt, chat=scored.chat_template)
    return {
        "records": _Condition(scored.sha256, records),
        "prompt": _Condition((scored.prompt, scored.chat_template), prompt),
        "solved examples": _Condition(scored.num_fewshot, examples_text(scored.num_fewshot)),
    } | found
