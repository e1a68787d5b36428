"""The headline: the result in a few sentences, none of which says more than was measured."""

from collections.abc import Sequence

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.formats import listed, percent, points, seeds
from surogate_bench_orchestrator.report.recipe_words import mismatch
from surogate_bench_orchestrator.report.seed_spread import seed_spread
from surogate_bench_orchestrator.report.summary import Comparison, Row

_ALPHA = 0.05


def headline(sweep: RecipeSweep, rows: Sequence[Row], reference: str | None, data: str) -> str:
    """Say the result plainly.

    Args:
        sweep: What was asked for.
        rows: The base model and every recipe over its seeds.
        reference: The recipe that differences are taken to.
        data: What the questions are called.
    """
    base = next((row for row in rows if row.recipe is None and row.score), None)
    scored = [row for row in rows if row.recipe is not None and row.score]
    if not scored:
        return "No recipe has been scored yet. The table says what each run is waiting for or why it ended."
    served = mismatch([recipe for recipe in sweep.recipes if recipe.name in {row.recipe for row in scored}])
    ours = next((row for row in scored if row.recipe == reference), None)
    if ours is None:
        best = max(scored, key=lambda row: row.score.accuracy if row.score else 0.0)
        parts = [_gain(best, base, data), "There is no unquantized run to compare the others with.", served]
    else:
        parts = [_gain(ours, base, data), *_comparisons(sweep, scored, ours), served]
    return " ".join(part for part in parts if part)


def _gain(row: Row, base: Row | None, data: str) -> str:
    assert row.score is not None  # noqa: S101 - callers pass scored rows only
    questions = f"{row.score.samples:,} {data} questions"
    trained = f"{row.title} ({'mean of ' if len(row.seeds) > 1 else ''}{seeds(row.seeds)})"
    if base is None or base.score is None:
        return f"Fine-tuned with {trained}, the model solved {percent(row.score.accuracy)} of {questions}."
    return (
        f"Fine-tuning with {trained} took the model from {percent(base.score.accuracy)} to "
        f"{percent(row.score.accuracy)} of {questions}."
    )


def _comparisons(sweep: RecipeSweep, scored: Sequence[Row], reference: Row) -> list[str]:
    compared = [(row, row.versus_reference) for row in scored if row.versus_reference is not None]
    if not compared:
        return [f"Nothing else has been compared with {reference.title} yet."]
    tested = [(row, found) for row, found in compared if found.p_adjusted is not None]
    seen = [(row, found) for row, found in compared if found.p_adjusted is None]
    return [
        *([_verdict(tested, reference)] if tested else []),
        *_observations(seen, reference),
        *([_caution(sweep, scored)] if seen else []),
    ]


def _verdict(compared: Sequence[tuple[Row, Comparison]], reference: Row) -> str:
    """What tests over seeds and questions say of the recipes."""
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
        parts.append(f"no significant difference shows for {listed(alike)}")
    numbers = {found.seeds for _, found in compared}
    over = f" over {seeds(next(iter(numbers)))}" if len(numbers) == 1 else " over the seeds that both have"
    return f"Against {reference.title}{over}, {'; '.join(parts)}."


def _with_points(row: Row, comparison: Comparison) -> str:
    return f"{row.title} ({points(comparison.delta)} points)"


def _observations(compared: Sequence[tuple[Row, Comparison]], reference: Row) -> list[str]:
    """What was seen with one seed, without any claim about recipes; a sentence for each seed."""
    found: dict[int, list[tuple[Row, Comparison]]] = {}
    for row, comparison in compared:
        found.setdefault(comparison.seeds[0], []).append((row, comparison))
    return [_observation(seed, pairs, reference) for seed, pairs in found.items()]


def _observation(seed: int, compared: Sequence[tuple[Row, Comparison]], reference: Row) -> str:
    n = compared[0][0].score.samples if compared[0][0].score else 0
    parts: list[str] = []
    for row, found in compared:
        right, others = round(found.accuracy * n), round(found.other_accuracy * n)
        change = f"{abs(right - others):,} {'fewer' if right < others else 'more'}" if right != others else "as many"
        if parts:
            parts.append(f"{row.title} {change} ({right:,})")
            continue
        than = f"{'than' if right != others else 'as'} {reference.title}"
        parts.append(f"{row.title} answered {change} correctly {than} ({right:,} against {others:,})")
    return f"On these {n:,} questions with seed {seed}, {listed(parts)}."


def _caution(sweep: RecipeSweep, scored: Sequence[Row]) -> str:
    known = seed_spread(sweep, scored)
    return "Another seed may give other differences" + (
        f": {known}." if known else "; by how much seeds differ was not measured here."
    )
