"""The dumb-bell chart: each adapter's accuracy on the base as published, and on the base it was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from surogate_bench_orchestrator.report.charts.row_marks import (
    draw_interval,
    draw_note,
    draw_value,
    name_rows,
    whole_points,
)
from surogate_bench_orchestrator.report.charts.style import (
    BAND,
    GROUND,
    MUTED,
    NARROW_INCHES,
    WIDE_INCHES,
    Layout,
    SeriesStyle,
    bare_ticks,
    lay_out,
    new_figure,
)
from surogate_bench_orchestrator.report.model.served import Served, ServedCell, ServedRow
from surogate_bench_orchestrator.report.model.summary import Summary
from surogate_bench_orchestrator.report.tables.matrix import marks
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.formats import points, short
from surogate_bench_orchestrator.report.text.matrix_notes import dagger_note

_ROW_INCHES = 0.52
_FRAME_INCHES = 1.15
_LINE_INCHES = 0.16
_WIDE_LINE, _NARROW_LINE = 160, 72  # characters
_APART = 0.15
"""Rows between an accuracy and the middle of its row, so that two intervals do not hide each other."""


def draw_own(summary: Summary, served: Served, styles: Mapping[str, SeriesStyle], *, layout: Layout) -> Figure:
    """Draw the recipes; one that was not to be served as trained has its accuracy as published alone.

    Args:
        summary: What to draw.
        served: Its matrix.
        styles: By recipe name.
        layout: Panels side by side, or one above the other.
    """
    rows = [row for row in served.rows if not row.is_base]
    styles = {name: replace(style, marker="o") for name, style in styles.items()}  # hollow and filled must be alike
    wide = layout == "wide"
    below = [line for note in _notes(served) for line in wrap(note, _WIDE_LINE if wide else _NARROW_LINE)]
    height = _FRAME_INCHES + _ROW_INCHES * len(rows)
    extra = _LINE_INCHES * len(below)
    figure = new_figure(WIDE_INCHES, height + extra) if wide else new_figure(NARROW_INCHES, 2 * height + extra)
    grid = figure.subplots(1, 2, sharey=True, squeeze=False) if wide else figure.subplots(2, 1, squeeze=False)
    scores, differences = grid.flat
    _draw_pairs(scores, served, styles, summary.reference)
    _draw_differences(differences, rows, styles, summary)
    titles = [short(row.title) for row in rows]
    name_rows(scores, titles, visible=True)
    name_rows(differences, titles, visible=not wide)
    for axes in (scores, differences):
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        bare_ticks(axes)
    if below:
        figure.supxlabel("\n".join(below), x=0.01, ha="left", fontsize=8, color=MUTED)
    return lay_out(figure)


def own_caption(served: Served, reference: str | None) -> str:
    """Describe the panels that are drawn.

    Args:
        served: The matrix.
        reference: Key of the row that others are compared with.
    """
    several = any(len(cell.seeds) > 1 for row in served.rows for cell in row.cells)
    ours = next((row for row in served.rows if row.key == reference), None)
    band = f"; the grey band is the interval of {ours.title} as published" if ours and ours.published.score else ""
    covered = "seeds and questions, where there are several seeds" if several else "the questions, not the seed"
    return (
        f"First panel: accuracy of each adapter served as published (hollow) and as trained (filled){band}. Second "
        f"panel: the paired difference between the two, as trained minus published. 95 % intervals cover {covered}."
    )


def _notes(served: Served) -> list[str]:
    """Explain the marks in the chart."""
    pairs = [(row, row.own) for row in served.rows if row.own]
    unlike = [
        dagger_note(f"{row.title} as trained", "itself as published", found)
        for row, own in pairs
        if (found := own.versus_published) and not found.of_all_seeds
    ]
    others = [note for note in served.footnotes if note.startswith((formats.DOUBLE_DAGGER, formats.SECTION))]
    return [*unlike, *others]


def _draw_pairs(axes: Axes, served: Served, styles: Mapping[str, SeriesStyle], reference: str | None) -> None:
    for position, row in enumerate(row for row in served.rows if not row.is_base):
        style = styles.get(row.key)
        published, own = row.published, row.own
        if row.key == reference and published.score:
            axes.axvspan(published.score.low, published.score.high, color=BAND, lw=0, zorder=0)
        if published.score and own and own.score:
            ends = (published.score.accuracy, own.score.accuracy)
            colour = MUTED if style is None else style.colour
            axes.plot(ends, (position - _APART, position + _APART), color=colour, lw=1.2, ls=(0, (1.5, 1.5)))
        _draw_cell(axes, position - (_APART if own else 0.0), published, served, style)
        if own:
            _draw_cell(axes, position + _APART, own, served, style)
    axes.set_title("Accuracy, %\nhollow: as published (bf16), filled: as trained")
    axes.margins(x=0.06)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))


def _draw_cell(axes: Axes, position: float, cell: ServedCell, served: Served, style: SeriesStyle | None) -> None:
    is_published = cell.served_under is None
    if cell.score is None:
        draw_note(axes, position, f"{'as published' if is_published else 'as trained'}: {cell.state}")
        return
    score = cell.score
    draw_interval(axes, position, (score.low, score.accuracy, score.high), style)
    if is_published and style is not None:
        axes.plot(score.accuracy, position, marker=style.marker, ms=7, ls="none", mfc=GROUND, mec=style.colour, mew=1.5)
    draw_value(axes, position, f"{100 * score.accuracy:.1f}{marks(cell, served)}")


def _draw_differences(
    axes: Axes, rows: Sequence[ServedRow], styles: Mapping[str, SeriesStyle], summary: Summary
) -> None:
    axes.axvline(0.0, color=MUTED, lw=0.9)
    for position, row in enumerate(rows):
        found = row.own.versus_published if row.own else None
        if found is None:
            draw_note(axes, position, _without_difference(row))
            continue
        draw_interval(axes, position, (found.low, found.delta, found.high), styles.get(row.key))
        unlike = "" if found.of_all_seeds else formats.DAGGER
        draw_value(axes, position, points(found.delta) + unlike + formats.significance(found.p_adjusted))
    paired = "paired by question and seed" if len(summary.seeds) > 1 else f"paired, {formats.seeds(summary.seeds)}"
    axes.set_title(f"As trained minus as published, points\n{paired}")
    axes.margins(x=0.06)
    axes.xaxis.set_major_formatter(FuncFormatter(whole_points))


def _without_difference(row: ServedRow) -> str:
    if row.own is None:
        return ""
    return "not compared" if row.own.score and row.published.score else "not scored in both ways"
