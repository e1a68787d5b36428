"""How adapters were trained on other weights or with other products than they are served on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from surogate_bench.recipes import RECIPES, ComputePrecision, Recipe, WeightStorage
from surogate_bench.recipes.precisions import COMPUTES, STORAGES
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.model.served import MATRIX_TITLE, Served, ServedRow
from surogate_bench_orchestrator.report.model.summary import Row
from surogate_bench_orchestrator.report.text.formats import listed, percent, seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A row whose adapters were trained under a recipe that quantizes, as far as that is known."""

    title: str
    recipe: Recipe
    scored: bool = True
    """Whether it has an accuracy as published."""
    own: str = ""
    """Its accuracy served as trained, as text; empty where there is none."""


def quantized_rows(sweep: RecipeSweep, rows: Sequence[Row], matrix: Served | None) -> tuple[Quantized, ...]:
    """Return the rows that were trained under a quantizing recipe, those of foreign trainers and adapters included.

    Args:
        sweep: What was requested.
        rows: The base model and every recipe over its seeds.
        matrix: Accuracies by way of serving; None where there is one way only.
    """
    recipes = {recipe.name: recipe for recipe in (*RECIPES, *sweep.recipes)}
    served = {row.key: row for row in matrix.rows} if matrix else {}
    return tuple(
        Quantized(title=row.title, recipe=recipe, scored=row.score is not None, own=_own(served.get(row.key)))
        for row in rows
        if (name := row.foreign.trained_under if row.foreign else row.recipe) is not None
        and (recipe := recipes[name]).quantizes
    )


def _own(row: ServedRow | None) -> str:
    """Format an accuracy served as trained; seeds are named where they are not those of the accuracy as published."""
    if row is None or row.own is None or row.own.score is None:
        return ""
    of = "" if row.own.seeds == row.published.seeds else f" with {seeds(row.own.seeds)}"
    return f"{percent(row.own.score.accuracy)}{of}"


def mismatch(rows: Sequence[Quantized], *, served_otherwise: bool = False) -> str:
    """Return a sentence on how serving differed from training, and what adapters served as trained scored.

    Args:
        rows: Those that were trained under a quantizing recipe.
        served_otherwise: Whether the accuracies meant are of one way of serving among several.

    Returns:
        Empty where no row has been scored.
    """
    own = [row for row in rows if row.own]
    without = [row for row in rows if row.scored and not row.own]
    if not own and not without:
        return ""
    adapters = "As published, adapters" if served_otherwise else "All adapters"
    parts = [f"{adapters} were served on bf16 weights with bf16 products"]
    if own:
        parts.append(f"served as trained instead, {_scores(own)}")
    if without:
        parts.append(_includes(without, "and not scored as trained " if own else ""))
    return f"{'; '.join(parts)}."


def _scores(rows: Sequence[Quantized]) -> str:
    texts = {row.title: f"{row.title} {row.own}" for row in rows}
    return listed([f"{listed([texts[row.title] for row in of])} ({kind})" for kind, of in _by_kind(rows)])


def _includes(rows: Sequence[Quantized], which: str) -> str:
    kinds = [f"{kind} ({listed([row.title for row in of])})" for kind, of in _by_kind(rows)]
    named = kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"
    if len(rows) == 1:
        return f"the accuracy of the one trained with {named} {which}includes that mismatch"
    return f"the accuracies of those trained with {named} {which}include that mismatch"


def _by_kind(rows: Sequence[Quantized]) -> Iterator[tuple[str, Sequence[Quantized]]]:
    """Yield what was quantized, products, weights or both, and the rows of which it was."""
    of: dict[tuple[bool, bool], list[Quantized]] = {}
    for row in rows:
        weights = row.recipe.weight_storage is not WeightStorage.BF16
        of.setdefault((weights, row.recipe.compute is not ComputePrecision.BF16), []).append(row)
    kinds = {(False, True): "quantized products", (True, False): "quantized weights"}
    both = "both" if kinds.keys() <= of.keys() else "quantized weights and products"
    for key, kind in (kinds | {(True, True): both}).items():
        if key in of:
            yield kind, of[key]


def mismatch_details(rows: Sequence[Quantized], matrix: Served | None = None) -> str:
    """Return a note on the formats of training for each row where they are not those of serving; empty if none.

    Args:
        rows: Those that were trained under a quantizing recipe, scored or not.
        matrix: Accuracies by way of serving; None where there is one way only.
    """
    if not rows:
        return ""
    formats = [
        f"{row.title} on {STORAGES[row.recipe.weight_storage].short} weights with "
        f"{COMPUTES[row.recipe.compute].short} products"
        for row in rows
    ]
    if matrix is not None:
        return (
            "The first table is of adapters served as published, on bf16 weights with bf16 products, but not all were "
            f"trained that way: {listed(formats)}. {_separated(rows, matrix)}"
        )
    return (
        "All adapters are served on bf16 weights with bf16 products, as in the reference procedure, but not all were "
        f"trained that way: {listed(formats)}. In these rows, the effects of recipe and mismatch are combined; the "
        "cost of a recipe alone is not measured."
    )


def _separated(rows: Sequence[Quantized], matrix: Served) -> str:
    """State for which rows the cost of training and the mismatch are separated, and for which they are not."""
    separated = [split.title for split in matrix.splits if split.training]
    others = [row.title for row in rows if row.title not in separated]
    if not separated:
        why = (
            "no unquantized run with the same seed has been scored"
            if matrix.splits
            else "no recipe's adapter has been scored served as trained"
        )
        return f"Recipe and mismatch are not separated: {why}."
    return f"“{MATRIX_TITLE}” separates recipe and mismatch for {listed(separated)}" + (
        f", not for {listed(others)}." if others else "."
    )
