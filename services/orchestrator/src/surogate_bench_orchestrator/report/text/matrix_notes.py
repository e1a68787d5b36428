"""What the marks in the tables of the matrix *trained under* times *served under* mean."""

from collections.abc import Iterator, Mapping, Sequence

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import LossSplit, ServedCell, ServedRow
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.formats import fraction, seeds


def footnotes(
    rows: Sequence[ServedRow],
    splits: Sequence[LossSplit],
    titles: Mapping[str, str],
    sweep: RecipeSweep,
    reference: str | None,
) -> tuple[str, ...]:
    """Explain the marks and the cells without a score.

    Args:
        rows: Rows over seeds.
        splits: What the table of losses shows.
        titles: Titles of recipes, by name.
        sweep: What was requested.
        reference: Recipe that the others are compared with.
    """
    cells = [(row, cell) for row in rows for cell in row.cells]
    recipes = [cell for row, cell in cells if not row.is_base]
    several = any(len(cell.seeds) > 1 for cell in recipes)
    is_crossed = any(cell.served_under not in {None, row.trained_under} for row, cell in cells if not row.is_base)
    shown = cells if is_crossed else []  # else there are no tables of differences to the same adapter, or by column
    candidates = [
        "* p < 0.05, ** p < 0.01, *** p < 0.001 over seeds and questions, Holm-adjusted over the recipes of a column."
        if any(formats.significance(found.p_adjusted) for found in _comparisons(recipes, splits))
        else "",
        *dict.fromkeys(note for row, cell in shown for note in _unlike(row, cell, titles, reference)),
        *(_unlike_split(split) for split in splits),
        f"{formats.DOUBLE_DAGGER} One seed: the interval covers questions, not seeds."
        if several and any(len(cell.seeds) == 1 for cell in recipes)
        else "",
        f"{formats.SECTION} More than {100 * sweep.evaluation.max_empty_fraction:g} % of the answers are empty."
        if any(cell.many_empty for _, cell in cells)
        else "",
        *(_incomplete(row, cell, titles) for row, cell in cells),
    ]
    return tuple(note for note in candidates if note)


def _comparisons(cells: Sequence[ServedCell], splits: Sequence[LossSplit]) -> Iterator[Comparison]:
    found = [found for cell in cells for found in (cell.versus_published, cell.versus_reference)]
    found += [part for split in splits for part in (split.total, split.training, split.serving)]
    return (each for each in found if each is not None)


def _unlike(row: ServedRow, cell: ServedCell, titles: Mapping[str, str], reference: str | None) -> Iterator[str]:
    """Yield explanations of differences that are not those of the accuracies beside them."""
    where = f"{row.title} {_served(cell, titles)}"
    others = ((cell.versus_published, "itself as published"), (cell.versus_reference, titles.get(reference or "", "")))
    for found, other in others:
        if found is not None and not found.of_all_seeds:
            yield dagger_note(where, other, found)


def dagger_note(this: str, other: str, found: Comparison) -> str:
    """Explain the mark of a difference that is not that of the accuracies beside it."""
    return (
        f"{formats.DAGGER} {this}: the difference to {other} is over {seeds(found.seeds)}, which both have: "
        f"{fraction(found.accuracy)} against {fraction(found.other_accuracy)}."
    )


def _unlike_split(split: LossSplit) -> str:
    parts = [part for part in (split.total, split.training, split.serving) if part is not None]
    if all(part.of_all_seeds for part in parts):
        return ""
    return (
        f"{formats.DAGGER} {split.title}: the split of its difference is over {seeds(split.seeds)}, with which all of "
        "its accuracies are known."
    )


def _incomplete(row: ServedRow, cell: ServedCell, titles: Mapping[str, str]) -> str:
    if not cell.reason or cell.served_under is None:  # as published: named with the first table
        return ""
    return f"{row.title} {_served(cell, titles)} {cell.state}: {cell.reason}"


def _served(cell: ServedCell, titles: Mapping[str, str]) -> str:
    return "as published" if cell.served_under is None else f"served under {titles[cell.served_under]}"
