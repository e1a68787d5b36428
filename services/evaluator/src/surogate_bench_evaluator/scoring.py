"""Convert lm-eval's results to those of the sweep, and check lm-eval's figures."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from typing import Any, NotRequired, Self, TypedDict

from surogate_bench.errors import PermanentError
from surogate_bench.inputs.content import MULTIPLE_CHOICE
from surogate_bench.results import CUT_OFF, EvalResult, Metric, SampleLine, ScoredData
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.statistics import binomial_stderr
from surogate_bench_evaluator.measures import STRICT, Measure, measures_of, right_by_index
from surogate_bench_evaluator.server import ServedModel

_log = logging.getLogger(__name__)

_TOLERANCE = 1e-9
_NOTHING_FOUND = "[invalid]"
"""lm-eval's own fallback of a regular expression that matches nothing."""
_EXTRACTING = frozenset({"regex", "multi_choice_regex"})
"""lm-eval's filters that search an answer by a regular expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Results of lm-eval for one task, and the duration in seconds."""

    task: str
    results: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Outputs of one evaluation."""

    result: EvalResult
    samples: tuple[SampleLine, ...]
    """One per question, by index."""
    lm_eval: dict[str, Any]
    """lm-eval's own results as plain JSON, without the samples."""

    def describing(self, scored: ScoredData, special_tokens: tuple[str, ...] | None, served: ServedModel) -> Self:
        """Return a copy whose result also describes the records, the special tokens and the way of serving."""
        added = {
            "scored": scored,
            "special_tokens": special_tokens,
            "served_under": served.under,
            "merged": served.merged,
            "serving_version": served.serving_version,
        }
        return replace(self, result=self.result.model_copy(update=added))


def score(outcome: Outcome, evaluation: EvaluationSpec, *, model: str) -> Scores:
    """Convert lm-eval's results into figures and samples.

    Raises:
        ConfigError: the task lacks the metric, which by default is exact_match with both filters, or acc.
        PermanentError: lm-eval's figures differ from those computed from its samples.
    """
    chooses = _config(outcome).get("output_type") == MULTIPLE_CHOICE
    logged = outcome.results["samples"][outcome.task]
    first, second = measures_of(outcome.task, logged, asked=evaluation.metric, chooses=chooses)
    samples = _sample_lines(outcome, first, second, chooses=chooses)
    empty = sum(not line.response.strip() for line in samples)
    if empty > evaluation.max_empty_fraction * len(samples):
        _log.warning("%d of %d answers are empty and count as incorrect", empty, len(samples))
    headline = _metric(outcome, first, [line.strict_match for line in samples])
    beside = _metric(outcome, second, [line.flexible_match for line in samples]) if second else headline
    result = EvalResult(
        task=outcome.task,
        model=model,
        samples=len(samples),
        strict=headline,
        flexible=beside,
        metric=None if first == STRICT and second else first.label,
        second_metric=second.label if second and first != STRICT else None,
        empty_answers=empty,
        **_endings(samples),
        seconds=outcome.seconds,
        parallel_evaluations=evaluation.parallel_evaluations,
    )
    without_samples = {key: value for key, value in outcome.results.items() if key != "samples"}
    return Scores(result=result, samples=samples, lm_eval=_plain(without_samples))


def _config(outcome: Outcome) -> Mapping[str, Any]:
    found: Mapping[str, Any] = outcome.results.get("configs", {}).get(outcome.task, {})
    return found


def _sample_lines(outcome: Outcome, first: Measure, second: Measure | None, *, chooses: bool) -> tuple[SampleLine, ...]:
    logged = outcome.results["samples"][outcome.task]
    strict = right_by_index(logged, first)
    flexible = right_by_index(logged, second) if second else strict
    formatted = _formatted(outcome, first.under)
    by_index = {sample["doc_id"]: sample for sample in logged}
    return tuple(
        SampleLine(
            index=index,
            strict_match=strict[index],
            flexible_match=flexible[index],
            **(_chosen(sample) if chooses else _generated(sample, formatted.get(index))),
        )
        for index, sample in sorted(by_index.items())
    )


class _Texts(TypedDict):
    """Fields of a :class:`SampleLine` about question and answer."""

    question: str
    target: str
    response: str
    formatted: NotRequired[bool | None]
    finish_reason: NotRequired[str | None]
    tokens: NotRequired[int | None]


def _generated(sample: Mapping[str, Any], formatted: bool | None) -> _Texts:
    """Return question and generated answer, in which the strict filter has found an answer or not."""
    answer = sample["resps"][0][0]
    return {
        "question": str(sample["doc"].get("question") or sample["arguments"][0][0]),
        "target": str(sample["target"]).rpartition("####")[2].strip(),
        "response": str(answer),
        "formatted": formatted,
        "finish_reason": getattr(answer, "finish_reason", None),
        "tokens": getattr(answer, "tokens", None),
    }


def _chosen(sample: Mapping[str, Any]) -> _Texts:
    """Return question and the choice with the largest log-likelihood.

    Where prompts differ and not what follows them, as in winogrande, that is the prompt with what follows it.
    """
    likelihoods = [float(responses[0][0]) for responses in sample["resps"]]
    prompt, continuation = sample["arguments"][likelihoods.index(max(likelihoods))][:2]
    first_prompt = str(sample["arguments"][0][0])
    are_prompts = any(arguments[0] != first_prompt for arguments in sample["arguments"])
    return {
        "question": first_prompt,
        "target": str(sample["target"]),
        "response": f"{prompt}{continuation}" if are_prompts else str(continuation),
    }


def _formatted(outcome: Outcome, under: str) -> dict[int, bool]:
    """Return whether a filter found an answer, by the number of its record; empty if it searches for none."""
    nothing_found = _fallback(outcome, under)
    if nothing_found is None:
        return {}
    return {
        sample["doc_id"]: sample["filtered_resps"][0] != nothing_found
        for sample in outcome.results["samples"][outcome.task]
        if sample["filter"] == under and "filtered_resps" in sample
    }


def _fallback(outcome: Outcome, under: str) -> str | None:
    """Return what a filter gives where its regular expression finds no answer; None if it has none."""
    filters = _config(outcome).get("filter_list") or []
    steps = [step for each in filters if each["name"] == under for step in each["filter"]]
    fallbacks = (str(step.get("fallback", _NOTHING_FOUND)) for step in steps if step["function"] in _EXTRACTING)
    return next(fallbacks, None)


def _endings(samples: Sequence[SampleLine]) -> dict[str, int | None]:
    """Count how answers ended; None if this is not known for every answer."""
    reasons, formatted = [line.finish_reason for line in samples], [line.formatted for line in samples]
    tokens = [line.tokens for line in samples if line.tokens is not None]
    return {
        "cut_off_answers": None if None in reasons else reasons.count(CUT_OFF),
        "unformatted_answers": None if None in formatted else formatted.count(False),
        "answer_tokens": sum(tokens) if len(tokens) == len(samples) else None,
    }


def _metric(outcome: Outcome, measure: Measure, right: list[bool]) -> Metric:
    figures = outcome.results["results"][outcome.task]
    accuracy, stderr = figures[measure.key], figures[f"{measure.metric}_stderr,{measure.under}"]
    expected = sum(right) / len(right), binomial_stderr(sum(right), len(right))
    if not all(
        isinstance(given, float) and isclose(given, ours, abs_tol=_TOLERANCE)
        for given, ours in zip((accuracy, stderr), expected, strict=True)
    ):
        raise PermanentError(
            f"lm-eval reports {measure.label} {accuracy} ± {stderr}, but its samples give {expected[0]} ± {expected[1]}"
        )
    return Metric(accuracy=float(accuracy), stderr=float(stderr))


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Convert lm-eval's results into plain JSON: NumPy scalars as numbers, functions and paths by name, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, bool, type(None))):
        return value
    if isinstance(value, float):
        return float(value) if value - value == 0 else None
    item = getattr(value, "item", None)
    return _plain(item()) if callable(item) else str(value)
