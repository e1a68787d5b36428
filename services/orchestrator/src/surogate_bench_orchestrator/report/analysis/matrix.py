"""The matrix *trained under* times *served under*: accuracies, and paired differences along rows and columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.analysis.comparisons import Cell, Found, adjusted_by_family, beside, differences
from surogate_bench_orchestrator.report.analysis.loss_split import loss_splits, quantizing_alone
from surogate_bench_orchestrator.report.analysis.matrix_cells import (
    Source,
    imported,
    make_cell,
    row_family,
    sources_of,
    trained_under,
)
from surogate_bench_orchestrator.report.analysis.records import SweepRecords
from surogate_bench_orchestrator.report.analysis.rows import NoResultReasons, Rows
from surogate_bench_orchestrator.report.model.served import Served, ServedCell, ServedRow, ways_of
from surogate_bench_orchestrator.report.text.matrix_notes import footnotes


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
    ways = ways_of(sweep)
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
    along_rows = adjusted_by_family(to_published, lambda key: row_family(rows[key[0]], key[1]))
    along_columns = adjusted_by_family(to_reference, lambda key: key[1] or "")
    of_reference = {under: cell.seeds for (key, under), cell in plain.items() if key == reference}
    cells = {
        key: cell.model_copy(
            update={
                "versus_published": beside(along_rows.get(key), cell, plain[key[0], None].seeds),
                "versus_reference": beside(along_columns.get(key), cell, of_reference.get(key[1])),
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


def _served_row(source: Source, cells: Mapping[Cell, ServedCell]) -> ServedRow:
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


def _to_published(sources: Sequence[Source]) -> Found:
    pairs = [
        ((source.row.key, under), source.evaluations(under), source.evaluations(None))
        for source in sources
        for under in source.ways
        if under is not None
    ]
    return differences(pairs, imported(sources))


def _to_reference(sources: Sequence[Source], reference: str | None) -> Found:
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
    return differences(pairs, imported(sources))
