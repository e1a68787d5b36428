"""What the marks in the tables of the matrix *trained under* times *served under* mean."""

from collections.abc import Iterator, Mapping, Sequence

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import LossSplit, ServedCell, ServedRow
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.footnotes import kept_footnote, many_empty_footnote
from surogate_bench_orchestrator.report.text.formats import fraction, seeds

_SEVERAL = 2


def footnotes(
    rows: Sequence[ServedRow],
    splits: Sequence[LossSplit],
    titles: Mapping[str, str],
    sweep: RecipeSweep,
    reference: str | None,
) -> tuple[str, ...]:
    """Explain the marks in tables and charts, and the cells without a score.

    Args:
        rows: Rows over seeds.
        splits: What the table of losses shows.
        titles: Titles of recipes, by name.
        sweep: What was requested.
        reference: Recipe that the others are compared with.
    """
    cells = [(row, cell) for row in rows for cell in row.cells]
    adapters = [cell for row, cell in cells if not row.is_base]
    is_crossed = any(cell.served_under not in {None, row.trained_under} for row, cell in cells if not row.is_base)
    shown = cells if is_crossed else []  # else there are no tables of differences to the same adapter, or by column
    candidates = [
        "* p < 0.05, ** p < 0.01, *** p < 0.001 over seeds and questions, Holm-adjusted over the recipes of a column."
        if any(formats.significance(found.p_adjusted) for found in _comparisons(adapters, splits))
        else "",
        *dict.fromkeys(note for row, cell in shown for note in _unlike(row, cell, titles, reference)),
        *(_unlike_split(split) for split in splits),
        _covers_less_note(rows),
        many_empty_footnote(sweep, any_marked=any(cell.many_empty for _, cell in cells)),
        *(kept_footnote(f"{row.title} {_served(cell, titles)}", cell.kept, cell.seeds) for row, cell in cells),
        *(_incomplete(row, cell, titles) for row, cell in cells),
    ]
    return tuple(note for note in candidates if note)


def covers_less(row: ServedRow, cell: ServedCell, rows: Sequence[ServedRow]) -> bool:
    """Return whether an interval covers questions only while those of other rows cover seeds too.

    The base model has no seeds and is not one of the adapters that are compared, so its interval is not marked.
    """
    several = any(len(other.seeds) > 1 for each in rows for other in each.cells)
    return several and not row.is_base and cell.score is not None and len(cell.seeds) < _SEVERAL


def _covers_less_note(rows: Sequence[ServedRow]) -> str:
    marked = [cell for row in rows for cell in row.cells if covers_less(row, cell, rows)]
    kinds = {"seed": any(cell.seeds for cell in marked), "adapter": any(not cell.seeds for cell in marked)}
    if not marked:
        return ""
    one = " or ".join(kind for kind, there in kinds.items() if there)
    return f"{formats.DOUBLE_DAGGER} One {one}: the interval covers questions, not seeds."


def _comparisons(cells: Sequence[ServedCell], splits: Sequence[LossSplit]) -> Iterator[Comparison]:
    found = [found for cell in cells for found in (cell.versus_published, cell.versus_reference)]
    found += [part for split in splits for part in (split.total, split.training, split.serving)]
    return (each for each in found if each is not None)


def _unlike(row: ServedRow, cell: ServedCell, titles: Mapping[str, str], reference: str | None) -> Iterator[str]:
    """Yield explanations of differences that are not those of the accuracies next to them."""
    where = f"{row.title} {_served(cell, titles)}"
    others = ((cell.versus_published, "itself as published"), (cell.versus_reference, titles.get(reference or "", "")))
    for found, other in others:
        if found is not None and not found.of_all_seeds:
            yield dagger_note(where, other, found)


def dagger_note(this: str, other: str, found: Comparison) -> str:
    """Explain the mark of a difference that is not that of the accuracies next to it."""
    return (
        f"{formats.DAGGER} {this}: the difference to {other} is over {seeds(found.seeds)}, which both have: "
        f"{fraction(found.accuracy)} against {fraction(found.other_accuracy)}."
    )


def _unlike_split(split: LossSplit) -> str:
    parts = [part for part in (split.total, split.training, split.serving) if part is not None]
    if all(part.of_all_seeds for part in parts):
        return ""
    return (
        f"{formats.DAGGER} {split.title}: the split of its difference is over {seeds(split.seeds)}, for which all of "
        "its accuracies are known."
    )


def _incomplete(row: ServedRow, cell: ServedCell, titles: Mapping[str, str]) -> str:
    if not cell.reason or cell.served_under is None:  # as published: named with the first table
        return ""
    return f"{row.title} {_served(cell, titles)} {cell.state}: {cell.reason}"


def _served(cell: ServedCell, titles: Mapping[str, str]) -> str:
    return "as published" if cell.served_under is None else f"served under {titles[cell.served_under]}"
