"""The accuracy chart: accuracies with their 95 % intervals, and paired differences to the reference next to them."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from surogate_bench_orchestrator.report.charts.row_marks import draw_interval, draw_note, draw_value, whole_points
from surogate_bench_orchestrator.report.charts.style import (
    BAND,
    INK,
    MUTED,
    NARROW_INCHES,
    WIDE_INCHES,
    Layout,
    SeriesStyle,
    bare_ticks,
    lay_out,
    new_figure,
)
from surogate_bench_orchestrator.report.model.summary import Row, Summary
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.formats import points, short

_MARKS = (formats.DAGGER, formats.DOUBLE_DAGGER, formats.SECTION, formats.PILCROW, formats.PARALLEL)
_ROW_INCHES = 0.34
_FRAME_INCHES = 1.12
_LINE_INCHES = 0.16
_WIDE_LINE, _NARROW_LINE = 160, 72  # characters


def draw_accuracy(summary: Summary, styles: Mapping[str, SeriesStyle], *, layout: Layout) -> Figure:
    """Draw every row of the summary; one that has no score is named with its state.

    Args:
        summary: What to draw.
        styles: By name of the recipe or foreign adapter.
        layout: Panels side by side, or one above the other.
    """
    rows = summary.rows
    footnotes = [note for note in summary.footnotes if note.startswith(_MARKS)]
    height = _FRAME_INCHES + _ROW_INCHES * len(rows)
    compared = any(row.versus_reference for row in rows)
    wide = layout == "wide"
    panels = 2 if compared else 1
    below = [line for note in footnotes for line in wrap(note, _WIDE_LINE if wide else _NARROW_LINE)]
    extra = _LINE_INCHES * len(below)
    figure = new_figure(WIDE_INCHES, height + extra) if wide else new_figure(NARROW_INCHES, height * panels + extra)
    grid = figure.subplots(1, panels, sharey=True, squeeze=False) if wide else figure.subplots(panels, 1, squeeze=False)
    axes = list(grid.flat)
    _draw_scores(axes[0], summary, styles)
    if compared:
        _draw_differences(axes[1], rows, summary, styles)
    for index, panel in enumerate(axes):
        _name_rows(panel, summary, visible=index == 0 or not wide)
    if below:
        figure.supxlabel("\n".join(below), x=0.01, ha="left", fontsize=8, color=MUTED)
    return lay_out(figure)


def accuracy_caption(summary: Summary) -> str:
    """Describe the panels that are drawn."""
    several = len(summary.seeds) > 1
    covered = (
        "Intervals of recipes with two or more seeds cover seeds and questions"
        if several
        else "Intervals cover the choice of questions, not that of the seed"
    )
    reference = next((row for row in summary.rows if row.recipe and row.recipe == summary.reference), None)
    band = f"; the grey band is the interval of {reference.title}" if reference and reference.score else ""
    if not any(row.versus_reference for row in summary.rows):
        return f"Accuracy{band}. {covered}."
    return (
        f"First panel: accuracy{band}. Second panel: the paired difference, which is more precise than comparing "
        f"two intervals, because both runs answered the same questions. {covered}."
    )


def _draw_scores(axes: Axes, summary: Summary, styles: Mapping[str, SeriesStyle]) -> None:
    rows, reference = summary.rows, summary.reference
    right_edge = max((row.score.high for row in rows if row.score), default=1.0)
    for position, row in enumerate(rows):
        if row.score is None:
            draw_note(axes, position, row.state)
            continue
        if row.recipe is not None and row.recipe == reference:
            axes.axvspan(row.score.low, row.score.high, color=BAND, lw=0, zorder=0)
        draw_interval(axes, position, (row.score.low, row.score.accuracy, row.score.high), _style_of(row, styles))
        marks = (formats.DOUBLE_DAGGER if formats.covers_less(row, summary) else "") + (
            formats.SECTION if row.many_empty else ""
        )
        draw_value(axes, position, f"{100 * row.score.accuracy:.1f}{marks}")
    axes.set_title(f"Accuracy, %\n95 % interval over {formats.covered(rows)}")
    axes.set_xlim(0.0, min(1.02, right_edge * 1.04 + 0.01))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))


def _draw_differences(axes: Axes, rows: Sequence[Row], summary: Summary, styles: Mapping[str, SeriesStyle]) -> None:
    axes.axvline(0.0, color=MUTED, lw=0.9)
    for position, row in enumerate(rows):
        if (found := row.versus_reference) is None:
            named = formats.delta(row, summary).replace(formats.ABSENT, "")
            draw_note(axes, position, named or (row.state if row.state != "succeeded" else ""))
            continue
        draw_interval(axes, position, (found.low, found.delta, found.high), _style_of(row, styles))
        draw_value(axes, position, points(found.delta) + ("" if found.of_all_seeds else formats.DAGGER))
    paired = "paired by question and seed" if len(summary.seeds) > 1 else f"paired, {formats.seeds(summary.seeds)}"
    axes.set_title(f"Difference to {short(summary.reference_title or '')}, points\n{paired}")
    axes.margins(x=0.06)
    axes.xaxis.set_major_formatter(FuncFormatter(whole_points))


def _style_of(row: Row, styles: Mapping[str, SeriesStyle]) -> SeriesStyle | None:
    return styles.get(row.recipe or row.key)


def _name_rows(axes: Axes, summary: Summary, *, visible: bool) -> None:
    rows = summary.rows
    axes.set_yticks(range(len(rows)), [formats.short_title(row, summary) for row in rows], color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.spines["left"].set_visible(False)
    bare_ticks(axes)
    axes.tick_params(axis="y", labelleft=visible)
