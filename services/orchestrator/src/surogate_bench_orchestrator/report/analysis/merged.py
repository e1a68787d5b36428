"""Makes the section on merged adapters from their records."""

from collections.abc import Mapping, Sequence

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.analysis.comparisons import Cell, adjusted_by_family, beside, differences
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
from surogate_bench_orchestrator.report.model.merged import Merged, MergedCell, MergedRow
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import ways_of
from surogate_bench_orchestrator.report.text.merged_notes import footnotes, sentence_of


def build_merged(
    records: SweepRecords, sweep: RecipeSweep, rows: Rows, missing: NoResultReasons
) -> tuple[Merged | None, tuple[str, ...]]:
    """Make the table of merged adapters.

    Args:
        records: Results of the sweep.
        sweep: What was requested.
        rows: Rows of the summary.
        missing: Why runs have no result.

    Returns:
        The table, None where nothing is merged; and sentences about what could not be compared.
    """
    if not sweep.serving.merged:
        return None, ()
    over_seeds, problems = _rows(sources_of(rows.over_seeds, records), missing, sweep)
    per_run, _ = _rows(sources_of(rows.per_run, records), missing, sweep)
    ways = ways_of(sweep)
    merged = Merged(
        ways=ways,
        rows=over_seeds,
        runs=per_run,
        sentence=sentence_of(over_seeds, ways),
        footnotes=tuple(footnotes(over_seeds, ways)),
    )
    return merged, problems


def _rows(
    sources: Sequence[Source], missing: NoResultReasons, sweep: RecipeSweep
) -> tuple[tuple[MergedRow, ...], tuple[str, ...]]:
    by_key = {source.row.key: source for source in sources if source.merged_ways}
    pairs = (
        ((key, under), source.evaluations(under, merged=True), source.evaluations(under))
        for key, source in by_key.items()
        for under in source.merged_ways
    )
    found, unlike = differences(pairs, imported(sources))
    compared = adjusted_by_family(found, lambda cell: row_family(by_key[cell[0]].row, cell[1]))
    rows = tuple(_row(source, compared, missing, sweep) for source in by_key.values())
    return rows, tuple(f"{by_key[key].row.title}, merged: {why}." for (key, _), why in unlike)


def _row(
    source: Source, compared: Mapping[Cell, Comparison], missing: NoResultReasons, sweep: RecipeSweep
) -> MergedRow:
    row, cells = source.row, []
    for under in source.merged_ways:
        merged = make_cell(source, under, missing, sweep, merged=True)
        unmerged = make_cell(source, under, missing, sweep)
        versus = beside(compared.get((row.key, under)), merged, unmerged.seeds)
        cells.append(MergedCell(merged=merged, unmerged=unmerged, versus_unmerged=versus))
    return MergedRow(
        key=row.key,
        title=row.title,
        recipe=row.recipe,
        trained_under=trained_under(row),
        seed=row.seed,
        cells=tuple(cells),
    )
