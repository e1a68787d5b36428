"""Paired differences of many cells: computed, adjusted within families, and related to the accuracies next to them."""

from collections.abc import Callable, Collection, Iterable, Mapping

from surogate_bench.errors import PermanentError
from surogate_bench_orchestrator.report.analysis.records import EvalRecord
from surogate_bench_orchestrator.report.analysis.scores import Difference, adjusted, difference
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import ServedCell

Cell = tuple[str, str | None]
"""Key of a row and way of serving."""
Family = Callable[[Cell], str | None]
"""The family within which the p value of a comparison is adjusted."""
Found = tuple[dict[Cell, Difference], list[tuple[Cell, str]]]
"""Differences, and why others cannot be compared."""


def differences(
    pairs: Iterable[tuple[Cell, Mapping[int, EvalRecord], Mapping[int, EvalRecord]]], imported: Collection[str]
) -> Found:
    """Compare evaluations by seed, the first of each pair with the second.

    Args:
        pairs: By row and way of serving.
        imported: Keys of the rows that are one imported adapter each.

    Returns:
        Differences; none where no seed has kept answers on both sides. And why others cannot be compared.
    """
    found, unlike = dict[Cell, Difference](), list[tuple[Cell, str]]()
    for key, this, other in pairs:
        try:
            one = difference(this, other, is_of_adapter=key[0] in imported)
        except PermanentError as error:
            unlike.append((key, f"not compared, because {error}"))
            continue
        if one is not None:
            found[key] = one
    return found, unlike


def adjusted_by_family(differences: Mapping[Cell, Difference], family: Family) -> dict[Cell, Comparison]:
    """Adjust the p values of differences (Holm), each within its family."""
    families: dict[str | None, dict[Cell, Difference]] = {}
    for key, found in differences.items():
        families.setdefault(family(key), {})[key] = found
    return {key: found for members in families.values() for key, found in adjusted(members).items()}


def beside(found: Comparison | None, cell: ServedCell, others: tuple[int, ...] | None) -> Comparison | None:
    """Record whether a difference is that of the accuracies next to it; ``others`` is None in rows of single runs."""
    if found is None:
        return None
    if not cell.seeds and not others:  # without seeds on either side
        return found.model_copy(update={"seeds": ()})
    if not cell.seeds:  # a foreign adapter, compared with each seed of the reference
        return found.model_copy(update={"of_all_seeds": others == found.seeds})
    return found.model_copy(update={"of_all_seeds": found.seeds == cell.seeds and others in {None, found.seeds}})
