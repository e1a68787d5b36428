"""The matrix *trained under* times *served under*: accuracies, and paired differences along rows and columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from surogate_bench.errors import PermanentError
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.figures import Comparison
from surogate_bench_orchestrator.report.loss_split import loss_splits, quantizing_alone
from surogate_bench_orchestrator.report.matrix_cells import Source, make_cell, sources_of, trained_under
from surogate_bench_orchestrator.report.matrix_notes import footnotes
from surogate_bench_orchestrator.report.records import EvalRecord, SweepRecords
from surogate_bench_orchestrator.report.rows import NoResultReasons, Rows
from surogate_bench_orchestrator.report.scores import Difference, adjusted, difference
from surogate_bench_orchestrator.report.served import Served, ServedCell, ServedRow, Way
from surogate_bench_orchestrator.report.summary import Row

PUBLISHED_TITLE = "bf16, as published"
_OWN = "own"
_Key = tuple[str, str | None]
"""A cell: key of its row and way of serving."""
_Family = Callable[[_Key], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The matrix of a sweep, and sentences about cells that could not be compared."""

    served: Served
    not_compared: tuple[str, ...]


def build_matrix(
    records: SweepRecords, sweep: RecipeSweep, rows: Rows, missing: NoResultReasons, reference: str | None
) -> Matrix | None:
    """Make the matrix; None where everything is served as published alone.

    Args:
        records: Results of the sweep.
        sweep: What was requested.
        rows: Rows of the summary.
        missing: Why runs have no result.
        reference: Recipe that the others are compared with.
    """
    if len(sweep.served_under) == 1:
        return None
    titles = {recipe.name: recipe.title for recipe in sweep.recipes}
    ways = tuple(
        Way(served_under=under, title=titles[under] if under else PUBLISHED_TITLE) for under in sweep.served_under
    )
    sources = sources_of(rows.over_seeds, records)
    over_seeds, problems = _with_differences(sources, missing, sweep, reference)
    per_run, _ = _with_differences(sources_of(rows.per_run, records), missing, sweep, reference)
    splits = loss_splits(over_seeds, {source.row.key: source.evaluations for source in sources}, reference)
    served = Served(
        ways=ways,
        rows=over_seeds,
        runs=per_run,
        splits=splits,
        quantizing=quantizing_alone(over_seeds, ways),
        footnotes=footnotes(over_seeds, splits, titles, sweep, reference),
    )
    return Matrix(served=served, not_compared=tuple(problems))


def _with_differences(
    sources: Sequence[Source], missing: NoResultReasons, sweep: RecipeSweep, reference: str | None
) -> tuple[tuple[ServedRow, ...], list[str]]:
    plain = {
        (source.row.key, under): make_cell(source, under, missing, sweep) for source in sources for under in source.ways
    }
    rows = {source.row.key: source.row for source in sources}
    to_published, unlike = _to_published(sources)
    to_reference, unlike_reference = _to_reference(sources, reference)
    along_rows = _adjusted(to_published, lambda key: _row_family(rows[key[0]], key[1]))
    along_columns = _adjusted(to_reference, lambda key: key[1] or "")
    of_reference = {under: cell.seeds for (key, under), cell in plain.items() if key == reference}
    cells = {
        key: cell.model_copy(
            update={
                "versus_published": _beside(along_rows.get(key), cell, plain[key[0], None].seeds),
                "versus_reference": _beside(along_columns.get(key), cell, of_reference.get(key[1])),
            }
        )
        for key, cell in plain.items()
    }
    problems = [
        f"{rows[key].title} served under {under}: {why}."
        for (key, under), why in (*unlike, *unlike_reference)
        if under is not None  # as published: another note names it
    ]
    return tuple(_served_row(source, cells) for source in sources), problems


def _served_row(source: Source, cells: Mapping[_Key, ServedCell]) -> ServedRow:
    row = source.row
    return ServedRow(
        key=row.key,
        title=row.title,
        recipe=row.recipe,
        trained_under=trained_under(row),
        is_base=row.is_base,
        seed=row.seed,
        cells=tuple(cells[row.key, under] for under in source.ways),
    )


def _row_family(row: Row, under: str | None) -> str:
    """Return which comparisons to the same adapters as published are adjusted together."""
    if row.is_base:
        return "base"
    return _OWN if under == trained_under(row) else f"under {under}"


_Found = tuple[dict[_Key, Difference], list[tuple[_Key, str]]]


def _to_published(sources: Iterable[Source]) -> _Found:
    pairs = [
        ((source.row.key, under), source.evaluations(under), source.evaluations(None))
        for source in sources
        for under in source.ways
        if under is not None
    ]
    return _differences(pairs)


def _to_reference(sources: Sequence[Source], reference: str | None) -> _Found:
    """Compare recipes with the reference on each way of serving; runs with the reference's run of the same seed."""
    if reference is None:
        return {}, []
    theirs = [source for source in sources if source.row.recipe == reference]
    pairs = [
        ((source.row.key, under), source.evaluations(under, beside=others), others)
        for source in sources
        if not source.row.is_base and source.row.recipe != reference
        for under in source.ways
        if (others := {seed: found for each in theirs for seed, found in each.evaluations(under).items()})
    ]
    return _differences(pairs)


def _differences(pairs: Iterable[tuple[_Key, Mapping[int, EvalRecord], Mapping[int, EvalRecord]]]) -> _Found:
    found, unlike = dict[_Key, Difference](), list[tuple[_Key, str]]()
    for key, this, other in pairs:
        try:
            one = difference(this, other)
        except PermanentError as error:
            unlike.append((key, f"not compared, because {error}"))
            continue
        if one is not None:
            found[key] = one
    return found, unlike


def _adjusted(differences: Mapping[_Key, Difference], family: _Family) -> dict[_Key, Comparison]:
    families: dict[str | None, dict[_Key, Difference]] = {}
    for key, found in differences.items():
        families.setdefault(family(key), {})[key] = found
    return {key: found for members in families.values() for key, found in adjusted(members).items()}


def _beside(found: Comparison | None, cell: ServedCell, others: tuple[int, ...] | None) -> Comparison | None:
    """Record whether a difference is that of the accuracies beside it; ``others`` is None in rows of single runs."""
    if found is None:
        return None
    if not cell.seeds and not others:  # without seeds on either side
        return found.model_copy(update={"seeds": ()})
    if not cell.seeds:  # a foreign adapter, beside each seed of the reference
        return found.model_copy(update={"of_all_seeds": others == found.seeds})
    return found.model_copy(update={"of_all_seeds": found.seeds == cell.seeds and others in {None, found.seeds}})
