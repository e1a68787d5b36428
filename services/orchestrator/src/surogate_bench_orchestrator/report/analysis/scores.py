"""Computes accuracies and differences, with their uncertainty, from scored answers."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar

from surogate_bench.errors import PermanentError
from surogate_bench.results import CUT_OFF, EvalResult, SampleLine
from surogate_bench.statistics import (
    PooledComparison,
    aligned_outcomes,
    binomial_stderr,
    compare_seeds,
    holm_adjust,
    pool_seeds,
    wilson_interval,
)
from surogate_bench_orchestrator.report.analysis.records import EvalRecord
from surogate_bench_orchestrator.report.analysis.scored_data import require_same_data
from surogate_bench_orchestrator.report.model.scores import Comparison, Kept, Score
from surogate_bench_orchestrator.report.text.formats import seeds

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A paired difference before its p value is adjusted for being one of several."""

    pooled: PooledComparison
    seeds: tuple[int, ...]
    accuracy: float
    other_accuracy: float
    only_this: int
    only_reference: int
    is_of_adapter: bool = False
    """Whether this side is one imported adapter, which is compared with each seed of the other: no test of a recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedsScored:
    """The score of what has a result, or why there is none."""

    score: Score | None = None
    seeds: tuple[int, ...] = ()
    """Seeds behind ``score``."""
    evaluations: int = 0
    """How many evaluations are behind ``score``."""
    kept: Kept = field(default_factory=Kept)
    problem: str = ""


def score_seeds(found: Mapping[int | None, EvalRecord]) -> SeedsScored:
    """Score the evaluations of a row by seed; those of several whose answers were not kept are left out.

    Args:
        found: By seed; that of the base model or an imported adapter has none.
    """
    if not found:
        return SeedsScored()
    several = len(found) > 1
    used = {seed: record for seed, record in found.items() if record.samples or not several}
    left_out = tuple(sorted(seed for seed in found.keys() - used.keys() if seed is not None))
    if not used:
        return SeedsScored(problem=f"the answers of {seeds(left_out)} were not kept, so they cannot be put together")
    try:
        scored = score(list(used.values()))
    except PermanentError as error:
        return SeedsScored(problem=str(error))
    return SeedsScored(
        score=scored,
        seeds=tuple(sorted(seed for seed in used if seed is not None)),
        evaluations=len(used),
        kept=Kept(answers=all(record.samples for record in used.values()), left_out=left_out),
    )


def score(evaluations: Sequence[EvalRecord]) -> Score:
    """Compute the accuracy over one evaluation or several seeds of one recipe.

    Raises:
        PermanentError: the seeds were not scored on the same data, or fewer than two questions.
    """
    require_same_data(evaluations)
    results = [record.result for record in evaluations]
    if len(evaluations) == 1 and not evaluations[0].samples:
        right, n = round(results[0].strict.accuracy * results[0].samples), results[0].samples
        accuracy, stderr, (low, high) = right / n, binomial_stderr(right, n), wilson_interval(right, n)
        spread = None
    else:
        pooled = pool_seeds(list(_outcomes(evaluations).values()))
        accuracy, stderr, low, high = pooled.accuracy, pooled.stderr, pooled.low, pooled.high
        spread = pooled.seed_stddev
    return Score(
        accuracy=accuracy,
        stderr=stderr,
        low=low,
        high=high,
        seed_stddev=spread,
        flexible_accuracy=_second(results),
        samples=results[0].samples,
        empty_answers=sum(result.empty_answers for result in results),
        largest_empty_share=max(result.empty_answers / result.samples for result in results),
        **_endings(evaluations),
        eval_seconds=_mean([result.seconds for result in results]),
        parallel_evaluations=max(result.parallel_evaluations for result in results),
    )


def _second(results: Sequence[EvalResult]) -> float | None:
    """Return the mean by the second metric; None where there is none: such a result repeats its first one."""
    if any(result.metric and not result.second_metric for result in results):
        return None
    return _mean([result.flexible.accuracy for result in results])


class _Endings(TypedDict):
    """Fields of a :class:`Score` about how answers ended."""

    empty_share: float
    cut_off_answers: int | None
    cut_off_share: float | None
    unformatted_answers: int | None
    unformatted_share: float | None
    unfinished_share: float | None
    tokens_per_answer: float | None


def _endings(evaluations: Sequence[EvalRecord]) -> _Endings:
    """Return how answers ended, over all evaluations; what one of them does not have is None."""
    results = [record.result for record in evaluations]
    answers = sum(result.samples for result in results)
    cut_off = _total([result.cut_off_answers for result in results])
    unformatted = _total([result.unformatted_answers for result in results])
    tokens = _total([result.answer_tokens for result in results])
    lines = [line for record in evaluations for line in record.samples]
    known = len(lines) == answers and all(line.finish_reason is not None for line in lines)
    return {
        "empty_share": sum(result.empty_answers for result in results) / answers,
        "cut_off_answers": cut_off,
        "cut_off_share": None if cut_off is None else cut_off / answers,
        "unformatted_answers": unformatted,
        "unformatted_share": None if unformatted is None else unformatted / answers,
        "unfinished_share": sum(map(_is_unfinished, lines)) / answers if known else None,
        "tokens_per_answer": None if tokens is None else tokens / answers,
    }


def _is_unfinished(line: SampleLine) -> bool:
    return not line.strict_match and (line.finish_reason == CUT_OFF or not line.response.strip())


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def difference(
    this: Mapping[int, EvalRecord], reference: Mapping[int, EvalRecord], *, is_of_adapter: bool = False
) -> Difference | None:
    """Compare two recipes on the seeds that both have, question by question.

    Args:
        this: Evaluations by seed.
        reference: The same of what it is compared with.
        is_of_adapter: Whether ``this`` is one imported adapter, repeated for each seed.

    Returns:
        None where no seed has kept answers on both sides.

    Raises:
        PermanentError: they were not scored on the same data.
    """
    common = sorted(seed for seed in this.keys() & reference.keys() if this[seed].samples and reference[seed].samples)
    if not common:
        return None
    compared = [side[seed] for side in (this, reference) for seed in common]
    require_same_data(compared)
    outcomes = _outcomes(compared)
    rows = list(outcomes.values())
    ours, theirs = rows[: len(common)], rows[len(common) :]
    pairs = [pair for row, other in zip(ours, theirs, strict=True) for pair in zip(row, other, strict=True)]
    return Difference(
        pooled=compare_seeds(ours, theirs),
        seeds=tuple(common),
        accuracy=_mean([sum(row) / len(row) for row in ours]),
        other_accuracy=_mean([sum(row) / len(row) for row in theirs]),
        only_this=sum(a and not b for a, b in pairs),
        only_reference=sum(b and not a for a, b in pairs),
        is_of_adapter=is_of_adapter,
    )


def adjusted(differences: Mapping[_Key, Difference]) -> dict[_Key, Comparison]:
    """Adjust a family of differences to one reference (Holm), by key.

    Differences over several seeds are tests of recipes; those of one seed compare two adapters on the questions, and
    imported adapters are not of a recipe. They are different hypotheses, so each kind is a family of its own. An
    imported adapter against several seeds has no p value: it is one adapter, however many it is compared with.
    """
    ours = {key: found for key, found in differences.items() if not found.is_of_adapter}
    recipes = _holm({key: found for key, found in ours.items() if len(found.seeds) > 1})
    adapters = _holm({key: found for key, found in ours.items() if len(found.seeds) == 1}) | _holm(
        {key: found for key, found in differences.items() if found.is_of_adapter and len(found.seeds) == 1}
    )
    return {
        key: Comparison(
            delta=found.pooled.delta,
            stderr=found.pooled.stderr,
            low=found.pooled.low,
            high=found.pooled.high,
            seeds=found.seeds,
            accuracy=found.accuracy,
            other_accuracy=found.other_accuracy,
            of_all_seeds=True,
            only_this=found.only_this,
            only_reference=found.only_reference,
            p_value=found.pooled.p_value if key in recipes else None,
            p_adjusted=recipes.get(key),
            p_questions=found.pooled.p_value if key in adapters else None,
            p_questions_adjusted=adapters.get(key),
        )
        for key, found in differences.items()
    }


def _holm(differences: Mapping[_Key, Difference]) -> dict[_Key, float]:
    return dict(zip(differences, holm_adjust([found.pooled.p_value for found in differences.values()]), strict=True))


def _outcomes(evaluations: Sequence[EvalRecord]) -> dict[str, list[bool]]:
    # The number keeps apart the base model's answers where they are compared with several seeds.
    return aligned_outcomes(
        {f"{record.label} ({number})": record.samples for number, record in enumerate(evaluations, start=1)}
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
