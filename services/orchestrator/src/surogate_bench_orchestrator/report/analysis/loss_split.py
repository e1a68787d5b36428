"""Each recipe's loss as published, split into that of training under it and that of serving it elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from surogate_bench.errors import PermanentError
from surogate_bench_orchestrator.report.analysis.records import EvalRecord
from surogate_bench_orchestrator.report.analysis.scores import Difference, adjusted, difference
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import LossSplit, ServedRow, Way
from surogate_bench_orchestrator.report.text.formats import interval_of_points, listed, p_text, percent, points, seeds

Evaluations = Callable[[str | None], Mapping[int, EvalRecord]]
"""Evaluations of a row by seed, for a way of serving."""

_FEW = 0.05
"""Accuracy below which the untouched model's answers show little of what quantizing it changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Differences of one recipe before adjustment, all over the same seeds."""

    total: Difference | None
    training: Difference | None
    serving: Difference


def loss_splits(
    rows: Sequence[ServedRow], evaluations: Mapping[str, Evaluations], reference: str | None
) -> tuple[LossSplit, ...]:
    """Split the difference of each quantizing recipe to the reference.

    Args:
        rows: Rows over seeds.
        evaluations: By key of the row.
        reference: Key of the row that the others are compared with.
    """
    theirs = evaluations[reference](None) if reference is not None and reference in evaluations else {}
    found = {
        row.key: parts
        for row in rows
        if row.recipe is not None
        and row.trained_under == row.key  # not of a foreign trainer
        and row.own is not None
        and (parts := _parts(evaluations[row.key], row.key, theirs)) is not None
    }
    total = adjusted({key: parts.total for key, parts in found.items() if parts.total})
    training = adjusted({key: parts.training for key, parts in found.items() if parts.training})
    serving = adjusted({key: parts.serving for key, parts in found.items()})
    ours = next((row for row in rows if row.key == reference), None)
    return tuple(
        _split(row, ours, (total.get(row.key), training.get(row.key), serving[row.key]))
        for row in rows
        if row.key in found
    )


def _parts(evaluations: Evaluations, recipe: str, reference: Mapping[int, EvalRecord]) -> _Parts | None:
    published, own = _kept(evaluations(None)), _kept(evaluations(recipe))
    theirs = _kept(reference)
    both = published.keys() & own.keys()
    common = (both & theirs.keys()) or both
    published, own = _only(published, common), _only(own, common)
    try:
        serving = difference(published, own)
        total, training = difference(published, theirs), difference(own, theirs)
    except PermanentError:  # a note names what cannot be compared
        return None
    return None if serving is None else _Parts(total=total, training=training, serving=serving)


def _kept(evaluations: Mapping[int, EvalRecord]) -> dict[int, EvalRecord]:
    return {seed: found for seed, found in evaluations.items() if found.samples}


def _only(evaluations: Mapping[int, EvalRecord], of: set[int]) -> dict[int, EvalRecord]:
    return {seed: found for seed, found in evaluations.items() if seed in of}


def _split(
    row: ServedRow,
    reference: ServedRow | None,
    parts: tuple[Comparison | None, Comparison | None, Comparison],
) -> LossSplit:
    total, training, serving = parts
    published, own = row.published.seeds, row.own.seeds if row.own else ()
    theirs = reference.published.seeds if reference else ()
    total, training, serving = (
        _beside(total, published, theirs),
        _beside(training, own, theirs),
        serving.model_copy(update={"of_all_seeds": serving.seeds == published == own}),
    )
    return LossSplit(
        recipe=row.key,
        title=row.title,
        seeds=serving.seeds,
        total=total,
        training=training,
        serving=serving,
        sentence=_sentence(row.title, reference.title if reference else "", total, training, serving),
    )


def _beside(found: Comparison | None, ours: tuple[int, ...], theirs: tuple[int, ...]) -> Comparison | None:
    return found and found.model_copy(update={"of_all_seeds": found.seeds == ours == theirs})


def _sentence(
    title: str, reference: str, total: Comparison | None, training: Comparison | None, serving: Comparison
) -> str:
    several = len(serving.seeds) > 1
    start = f"{title}, {'over' if several else 'on these questions with'} {seeds(serving.seeds)}"
    elsewhere = "serving it on bf16 weights with bf16 products instead"
    if total is None or training is None:
        change = _change(serving, "points (95 % interval ")
        why = f"{reference} has no result with {seeds(serving.seeds)}" if reference else "there is no unquantized run"
        return f"{start}: {change} from {elsewhere}; {why} to compare it with."
    return (
        f"{start}: {_change(total, 'points (95 % interval ')} against {reference}, both as published: "
        f"{_change(training)} from training under {title} and serving as trained, and {_change(serving)} from "
        f"{elsewhere}."
    )


def _change(found: Comparison, unit: str = "(") -> str:
    """Format a difference in points with its interval and, where recipes are tested, the adjusted p value."""
    tested = "" if found.p_adjusted is None else f", {p_text(found.p_adjusted)}"
    return f"{points(found.delta)} {unit}{interval_of_points(found)}{tested})"


def quantizing_alone(rows: Sequence[ServedRow], ways: Sequence[Way]) -> str:
    """Describe in a sentence what quantizing changed for the untouched model; empty where it was not scored so."""
    base = next((row for row in rows if row.is_base), None)
    if base is None or base.published.score is None:
        return ""
    titles = {way.served_under: way.title for way in ways}
    parts = [
        f"{percent(cell.score.accuracy)} under {titles[cell.served_under]} ({points(found.delta)} points, "
        f"95 % interval {interval_of_points(found)})"
        for cell in base.cells
        if cell.score and (found := cell.versus_published)
    ]
    if not parts:
        return ""
    before = base.published.score.accuracy
    few = "; with so few correct answers, this says little about what quantizing changes" if before < _FEW else ""
    return (
        f"Quantizing alone: on these questions, the model without an adapter solved {percent(before)} as published, "
        f"{listed(parts)}{few}."
    )
