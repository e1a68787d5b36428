"""The headline: the result in at most three sentences, which claim no more than was measured."""

from collections.abc import Sequence

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.model.served import Served
from surogate_bench_orchestrator.report.model.summary import Comparison, Row
from surogate_bench_orchestrator.report.text.formats import (
    interval_of_points,
    listed,
    percent,
    percents_apart,
    points,
    seeds,
)
from surogate_bench_orchestrator.report.text.mismatch import mismatch, quantized_rows
from surogate_bench_orchestrator.report.text.seed_spread import seed_spread

_ALPHA = 0.05


def headline(sweep: RecipeSweep, rows: Sequence[Row], reference: str | None, matrix: Served | None = None) -> str:
    """Summarize the result: what fine-tuning changed, how recipes compare, how serving differs from training.

    Args:
        sweep: What was requested.
        rows: The base model and every recipe over its seeds.
        reference: The recipe that others are compared with.
        matrix: Accuracies by way of serving; None where there is one way only.
    """
    base = next((row for row in rows if row.is_base and row.score), None)
    scored = [row for row in rows if row.recipe is not None and row.score]
    if not scored:
        return "No recipe has been scored yet. The table shows what each run is waiting for or why it ended."
    served = mismatch(quantized_rows(sweep, rows, matrix), served_otherwise=matrix is not None)
    ours = next((row for row in scored if row.recipe == reference), None)
    if ours is None:
        gain = _gain(scored[0], base, matrix) if len(scored) == 1 else _accuracies(scored, base, matrix)
        parts = [gain, _no_reference(rows, reference), served]
    else:
        beside = [row for row in rows if not row.is_base and row.score]
        parts = [_gain(ours, base, matrix), _comparisons(beside, ours), served]
    return " ".join(part for part in parts if part)


def _gain(row: Row, base: Row | None, matrix: Served | None) -> str:
    assert row.score is not None  # noqa: S101 - callers pass scored rows only
    questions = _questions(row, matrix)
    trained = f"{row.title} ({'mean of ' if len(row.seeds) > 1 else ''}{seeds(row.seeds)})"
    if base is None or base.score is None or row.unlike_base:
        return f"Fine-tuned with {trained}, the model solved {percent(row.score.accuracy)} of {questions}."
    before, after = base.score.accuracy, row.score.accuracy
    if before == after:
        return f"Fine-tuning with {trained} left accuracy at {percent(after)} on {questions}."
    before_text, after_text = percents_apart(before, after)
    verb = "raised" if after > before else "lowered"
    return f"Fine-tuning with {trained} {verb} accuracy from {before_text} to {after_text} on {questions}."


def _questions(row: Row, matrix: Served | None) -> str:
    source = f" of {row.scored.source}" if row.scored else ""
    samples = row.score.samples if row.score else 0
    return f"{samples:,} questions{source}" + (", served as published in bf16" if matrix else "")


def _no_reference(rows: Sequence[Row], reference: str | None) -> str:
    row = next((row for row in rows if reference is not None and row.recipe == reference), None)
    if row is None:
        return "There is no unquantized run to compare the others with."
    return f"{row.title} has not been scored, so nothing is compared with it."


def _accuracies(scored: Sequence[Row], base: Row | None, matrix: Served | None) -> str:
    """Return every accuracy: to pick one of several would make more of it than was measured."""
    parts = [f"{percent(row.score.accuracy)} with {row.title} ({seeds(row.seeds)})" for row in scored if row.score]
    alike = base is not None and not any(row.unlike_base for row in scored)
    before = f"; without fine-tuning, {percent(base.score.accuracy)}" if base and base.score and alike else ""
    return f"Fine-tuned, the model solved {listed(parts)} of {_questions(scored[0], matrix)}{before}."


def _comparisons(scored: Sequence[Row], reference: Row) -> str:
    """Return one sentence: tests over several seeds, then observations with one seed, and that seeds differ."""
    compared = [(row, row.versus_reference) for row in scored if row.versus_reference is not None]
    if not compared:
        return f"Nothing else has been compared with {reference.title} yet."
    tested = [(row, found) for row, found in compared if found.p_adjusted is not None]
    observed = [(row, found) for row, found in compared if found.p_adjusted is None and not row.is_imported]
    imported = [(row, found) for row, found in compared if row.is_imported]
    parts = [
        *([_test_results(tested, reference)] if tested else []),
        *_observations(observed, reference),
        *([_caution(scored)] if observed else []),
        *(_of_adapter(row, found, reference) for row, found in imported),
    ]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _of_adapter(row: Row, found: Comparison, reference: Row) -> str:
    """Return what was observed with one imported adapter; it is no test of how it was trained."""
    return (
        f"this one adapter, {row.title}: {points(found.delta)} points (95 % interval {interval_of_points(found)}) "
        f"against {reference.title} with {seeds(found.seeds)}"
    )


def _test_results(compared: Sequence[tuple[Row, Comparison]], reference: Row) -> str:
    """Return the results of the tests over seeds and questions."""
    significant = [(row, found) for row, found in compared if (found.p_adjusted or 0.0) < _ALPHA]
    worse = [_with_points(row, found) for row, found in significant if found.delta < 0]
    better = [_with_points(row, found) for row, found in significant if found.delta > 0]
    alike = [_with_points(row, found) for row, found in compared if (row, found) not in significant]
    parts = [
        f"{listed(titles)} {'score' if len(titles) > 1 else 'scores'} significantly {direction}"
        for titles, direction in ((worse, "lower"), (better, "higher"))
        if titles
    ]
    if alike:
        parts.append(f"{listed(alike)} {'do' if len(alike) > 1 else 'does'} not differ significantly")
    numbers = {found.seeds for _, found in compared}
    over = f"over {seeds(next(iter(numbers)))}" if len(numbers) == 1 else "over the seeds that both have"
    return f"compared with {reference.title} {over}, {'; '.join(parts)}"


def _with_points(row: Row, comparison: Comparison) -> str:
    return f"{row.title} ({points(comparison.delta)} points)"


def _observations(compared: Sequence[tuple[Row, Comparison]], reference: Row) -> list[str]:
    """Return what was observed with one seed, a clause for each seed, without any claim about recipes."""
    found: dict[int, list[tuple[Row, Comparison]]] = {}
    for row, comparison in compared:
        found.setdefault(comparison.seeds[0], []).append((row, comparison))
    return [_observation(seed, pairs, reference) for seed, pairs in found.items()]


def _observation(seed: int, compared: Sequence[tuple[Row, Comparison]], reference: Row) -> str:
    n = compared[0][0].score.samples if compared[0][0].score else 0
    titles: dict[int, list[str]] = {}
    for row, found in compared:
        titles.setdefault(round(found.accuracy * n) - round(found.other_accuracy * n), []).append(row.title)
    (change, first), *others = titles.items()
    theirs = round(compared[0][1].other_accuracy * n)
    parts = [
        f"{_subject(first)} {_amount(change)} correct {'answer' if abs(change) == 1 else 'answers'} "
        f"{'than' if change else 'as'} {reference.title} ({theirs:,} of {n:,})",
        *(f"{_subject(names)} {_amount(amount)}" for amount, names in others),
    ]
    return f"with seed {seed}, {listed(parts)}"


def _subject(titles: Sequence[str]) -> str:
    return f"{listed(titles)} {'each ' if len(titles) > 1 else ''}had"


def _amount(change: int) -> str:
    return f"{abs(change):,} {'fewer' if change < 0 else 'more'}" if change else "as many"


def _caution(scored: Sequence[Row]) -> str:
    known = seed_spread(scored)
    if known:
        return f"another seed may give other differences (standard deviation of accuracy between seeds: {known})"
    return "seeds differ, so another one may give other differences (docs/benchmarks.md has examples)"
