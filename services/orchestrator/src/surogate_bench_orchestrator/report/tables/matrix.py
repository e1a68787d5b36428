"""Tables of the matrix *trained under* times *served under* as text."""

from collections.abc import Callable, Sequence

from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import Served, ServedCell, ServedRow
from surogate_bench_orchestrator.report.model.summary import Summary
from surogate_bench_orchestrator.report.tables.text_table import TextTable
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.matrix_notes import covers_less


def matrix_tables(summary: Summary) -> tuple[TextTable, ...]:
    """Return the tables of a summary's matrix; none where everything is served as published alone.

    Where recipes are served as published and as trained only, the matrix would be empty but for its first column and
    its diagonal, which one table shows side by side.
    """
    served = summary.served
    if served is None:
        return ()
    own = (_own_table(summary, served),) if served.has_own else ()
    return (*own, *_crossed_tables(summary, served)) if served.is_crossed else own


def matrix_footnotes(summary: Summary, tables: Sequence[TextTable]) -> tuple[str, ...]:
    """Return the footnotes of the matrix without those whose mark is in none of its tables."""
    footnotes = summary.served.footnotes if summary.served else ()
    return formats.for_marks(footnotes, (text for table in tables for row in table.rows for text in row[1:]))


def _own_table(summary: Summary, served: Served) -> TextTable:
    reference = summary.reference_title or "reference"
    return TextTable(
        title="As published and as trained",
        caption=(
            f"Δ {reference} is that of the accuracies as published; it is the sum of the two columns after it, paired "
            "by question and over the same seeds: training under the recipe (served as trained, against "
            f"{reference} as published), and serving elsewhere (as published, against itself served as trained). In "
            f"brackets: 95 % intervals, in points{_rounding(served)}."
        ),
        header=(
            "Trained under", "as published (bf16)", "served as trained", f"Δ {reference}, points",
            "training under it", "serving elsewhere", "base model, served the same way",
        ),
        rows=tuple(_own_cells(row, served, summary.reference) for row in served.rows if not row.is_base),
    )  # fmt: skip


def _rounding(served: Served) -> str:
    """Return a remark where rounded parts do not add up to their rounded sum."""
    sums = [(split.total, split.training, split.serving) for split in served.splits]
    is_off = any(
        round(1000 * total.delta) != round(1000 * training.delta) + round(1000 * serving.delta)
        for total, training, serving in sums
        if total and training
    )
    return "; rounded parts may not add up" if is_off else ""


def _own_cells(row: ServedRow, served: Served, reference: str | None) -> tuple[str, ...]:
    if row.key == reference:
        return (row.title, accuracy(row, row.published, served), "as published", "reference", *[formats.ABSENT] * 3)
    split = next((split for split in served.splits if split.recipe == row.key), None)
    base = next((each for each in served.rows if each.is_base), None)
    under = base.on(row.own.served_under) if base and row.own else None
    parts = (split.total, split.training, split.serving) if split else (None, None, None)
    return (
        row.title,
        accuracy(row, row.published, served),
        accuracy(row, row.own, served) if row.own else formats.ABSENT,
        *(_in_points(part) for part in parts),
        accuracy(base, under, served) if base and under else formats.ABSENT,
    )


def _crossed_tables(summary: Summary, served: Served) -> tuple[TextTable, ...]:
    reference = summary.reference_title
    along_rows = _by_way(
        served,
        "Difference to the same adapter as published, points",
        "Along a row: what another way of serving changes for an adapter. In brackets: 95 % intervals.",
        lambda _, cell: _in_points(cell.versus_published),
    )
    along_columns = _by_way(
        served,
        f"Difference to {reference} served the same way, points",
        f"Down a column: how recipes compare with {reference} on one way of serving. In brackets: 95 % intervals.",
        lambda _, cell: _in_points(cell.versus_reference),
    )
    return (
        _by_way(
            served,
            "Accuracy",
            "Rows: trained under. Columns: served under. In brackets: 95 % intervals.",
            lambda row, cell: accuracy(row, cell, served),
        ),
        along_rows,
        *((along_columns,) if reference else ()),
    )


def _by_way(served: Served, title: str, caption: str, text: Callable[[ServedRow, ServedCell], str]) -> TextTable:
    """Make a table with a column for each way of serving; rows and columns without any figure are left out."""
    header = [way.title for way in served.ways]
    rows = [(row, [_cell_text(row, way.served_under, text) for way in served.ways]) for row in served.rows]
    columns = [index for index in range(len(header)) if any(cells[index] != formats.ABSENT for _, cells in rows)]
    return TextTable(
        title=title,
        caption=caption,
        header=("Trained under", *(header[index] for index in columns)),
        rows=tuple(
            (row.title, *(cells[index] for index in columns))
            for row, cells in rows
            if any(cell != formats.ABSENT for cell in cells)
        ),
    )


def _cell_text(row: ServedRow, under: str | None, text: Callable[[ServedRow, ServedCell], str]) -> str:
    cell = row.on(under)
    shown = formats.ABSENT if cell is None else text(row, cell)
    is_own = under is not None and under == row.trained_under and shown != formats.ABSENT
    return f"{shown}, as trained" if is_own else shown


def accuracy(row: ServedRow, cell: ServedCell, served: Served) -> str:
    """Format the accuracy of a cell with its interval and marks, or its state."""
    if cell.score is None:
        return cell.state
    less = formats.DOUBLE_DAGGER if covers_less(row, cell, served.rows) else ""
    only = missing_seeds(cell, served)
    shown = f"{formats.fraction(cell.score.accuracy)}{formats.score_marks(cell)} ({formats.interval(cell.score)}{less})"
    return f"{shown}, {only}" if only else shown


def marks(row: ServedRow, cell: ServedCell, served: Served) -> str:
    """Return the marks of a cell's accuracy, where its interval is not written next to it."""
    less = formats.DOUBLE_DAGGER if covers_less(row, cell, served.rows) else ""
    return less + formats.score_marks(cell)


def missing_seeds(cell: ServedCell, served: Served) -> str:
    """Name the seeds of a cell where another cell has more of them; empty otherwise."""
    every = {seed for row in served.rows for other in row.cells for seed in other.seeds}
    return f"{formats.seeds(cell.seeds)} only" if cell.seeds and set(cell.seeds) < every else ""


def _in_points(found: Comparison | None) -> str:
    """Format a difference in points with its marks, interval and, where recipes are tested, p."""
    if found is None:
        return formats.ABSENT
    marks = ("" if found.of_all_seeds else formats.DAGGER) + formats.significance(found.p_adjusted)
    tested = "" if found.p_adjusted is None else f"; {formats.p_text(found.p_adjusted)}"
    return f"{formats.points(found.delta)}{marks} ({formats.interval_of_points(found)}{tested})"
