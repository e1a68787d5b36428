"""Convert lm-eval's results to those of the sweep, and check lm-eval's figures."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from typing import Any, Literal, Self

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.results import CUT_OFF, EvalResult, Metric, SampleLine, ScoredData
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.statistics import binomial_stderr
from surogate_bench_evaluator.server import ServedModel

_log = logging.getLogger(__name__)

Match = Literal["strict-match", "flexible-extract"]
STRICT: Match = "strict-match"
"""Filter of the task that takes the number after ``####``."""
FLEXIBLE: Match = "flexible-extract"
"""Filter of the task that takes the last number."""

_TOLERANCE = 1e-9
_NOTHING_FOUND = "[invalid]"
"""lm-eval's own fallback of a regular expression that matches nothing."""


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
    """By index."""
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
        ConfigError: the task does not score exact_match with both filters.
        PermanentError: lm-eval's figures differ from those computed from its samples.
    """
    samples = _sample_lines(outcome)
    empty = sum(not line.response.strip() for line in samples)
    if empty > evaluation.max_empty_fraction * len(samples):
        _log.warning("%d of %d answers are empty and count as incorrect", empty, len(samples))
    result = EvalResult(
        task=outcome.task,
        model=model,
        samples=len(samples),
        strict=_metric(outcome, STRICT, [line.strict_match for line in samples]),
        flexible=_metric(outcome, FLEXIBLE, [line.flexible_match for line in samples]),
        empty_answers=empty,
        **_endings(samples),
        seconds=outcome.seconds,
        parallel_evaluations=evaluation.parallel_evaluations,
    )
    without_samples = {key: value for key, value in outcome.results.items() if key != "samples"}
    return Scores(result=result, samples=samples, lm_eval=_plain(without_samples))


def _sample_lines(outcome: Outcome) -> tuple[SampleLine, ...]:
    logged = outcome.results["samples"][outcome.task]
    strict = _right_by_index(logged, STRICT, outcome.task)
    flexible = _right_by_index(logged, FLEXIBLE, outcome.task)
    by_index = {sample["doc_id"]: sample for sample in logged}
    nothing_found = _fallback(outcome)
    formatted = {
        sample["doc_id"]: sample["filtered_resps"][0] != nothing_found
        for sample in logged
        if sample["filter"] == "strict-match" and "filtered_resps" in sample
    }
    return tuple(
        SampleLine(
            index=index,
            question=str(sample["doc"].get("question") or sample["arguments"][0][0]),
            target=str(sample["target"]).rpartition("####")[2].strip(),
            response=str(answer := sample["resps"][0][0]),
            strict_match=strict[index],
            flexible_match=flexible[index],
            formatted=formatted.get(index),
            finish_reason=getattr(answer, "finish_reason", None),
            tokens=getattr(answer, "tokens", None),
        )
        for index, sample in sorted(by_index.items())
    )


def _fallback(outcome: Outcome) -> str:
    """Return what the strict filter gives where it finds no answer."""
    filters = outcome.results.get("configs", {}).get(outcome.task, {}).get("filter_list") or []
    steps = [step for each in filters if each["name"] == "strict-match" for step in each["filter"]]
    return next((str(step["fallback"]) for step in steps if "fallback" in step), _NOTHING_FOUND)


def _endings(samples: Sequence[SampleLine]) -> dict[str, int | None]:
    """Count how answers ended; None where that of any answer is not known."""
    reasons, formatted = [line.finish_reason for line in samples], [line.formatted for line in samples]
    tokens = [line.tokens for line in samples if line.tokens is not None]
    return {
        "cut_off_answers": None if None in reasons else reasons.count(CUT_OFF),
        "unformatted_answers": None if None in formatted else formatted.count(False),
        "answer_tokens": sum(tokens) if len(tokens) == len(samples) else None,
    }


def _right_by_index(logged: list[dict[str, Any]], match: Match, task: str) -> dict[int, bool]:
    right = {
        sample["doc_id"]: bool(sample["exact_match"] == 1)
        for sample in logged
        if sample["filter"] == match and "exact_match" in sample
    }
    if not right:
        raise ConfigError(
            f"has no exact_match under a filter named {match}",
            field="evaluation.task",
            value=task,
            remedy="Give its file the filter_list and metric_list of configs/tasks/ro_gsm8k.yaml.",
        )
    return right


def _metric(outcome: Outcome, match: Match, right: list[bool]) -> Metric:
    figures = outcome.results["results"][outcome.task]
    accuracy, stderr = figures[f"exact_match,{match}"], figures[f"exact_match_stderr,{match}"]
    expected = sum(right) / len(right), binomial_stderr(sum(right), len(right))
    if not all(
        isinstance(given, float) and isclose(given, ours, abs_tol=_TOLERANCE)
        for given, ours in zip((accuracy, stderr), expected, strict=True)
    ):
        raise PermanentError(
            f"lm-eval reports {match} {accuracy} ± {stderr}, but its samples give {expected[0]} ± {expected[1]}"
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
