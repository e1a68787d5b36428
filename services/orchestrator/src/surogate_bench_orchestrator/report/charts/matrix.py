"""The heat map of the matrix *trained under* times *served under*."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from surogate_bench_orchestrator.report.charts.style import (
    BAND,
    INK,
    MUTED,
    NARROW_INCHES,
    WIDE_INCHES,
    Layout,
    bare_ticks,
    lay_out,
    new_figure,
)
from surogate_bench_orchestrator.report.model.scores import Score
from surogate_bench_orchestrator.report.model.served import Served, ServedCell, ServedRow
from surogate_bench_orchestrator.report.tables.matrix import marks, missing_seeds
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.formats import short

_CELL_HEIGHT, _NARROW_CELL_HEIGHT, _FRAME_INCHES, _LINE_INCHES = 0.56, 0.36, 1.35, 0.18
_FEWEST_COLUMNS = 4
_WRAPPED = 12  # characters of a column's title on one line
# Blues from light to dark: monotone in lightness, so they are read without colours and in print as well.
_COLOURS = LinearSegmentedColormap.from_list("accuracy", ["#e9f2fa", "#9cc7e4", "#3f8fc5", "#0b4f8f"])
# Not the ink of other charts, which follows the reader's dark scheme: cells keep their colours.
_DARK_TEXT, _LIGHT_TEXT = "#010101", "#fefefe"
_HALF = 0.5
_MARKS = (formats.DOUBLE_DAGGER, formats.SECTION, formats.PARALLEL)


def draw_heat_map(served: Served, *, layout: Layout) -> Figure:
    """Draw the accuracies; the base model's are numbers without a colour, as they are far from the others.

    Args:
        served: The matrix.
        layout: ``narrow`` leaves the intervals out.
    """
    wide = layout == "wide"
    notes = [note for note in served.footnotes if note.startswith(_MARKS)]
    cells = (_CELL_HEIGHT if wide else _NARROW_CELL_HEIGHT) * len(served.rows)
    height = _FRAME_INCHES + cells + _LINE_INCHES * len(notes)
    figure = new_figure(WIDE_INCHES if wide else NARROW_INCHES, height)
    heat_map = _HeatMap(axes=figure.subplots(), served=served, scale=_scale(served.rows), wide=wide)
    heat_map.draw()
    if notes:
        figure.supxlabel("\n".join(notes), x=0.01, ha="left", fontsize=8, color=MUTED)
    return lay_out(figure)


def heat_map_caption(served: Served) -> str:
    """Describe what is drawn."""
    scale = _scale(served.rows)
    several = any(len(cell.seeds) > 1 for row in served.rows for cell in row.cells)
    base = " The model without an adapter is not on this scale." if any(row.is_base for row in served.rows) else ""
    own = " A thick frame: served as trained." if served.has_own else ""
    shades = f"from {formats.percent(scale.vmin or 0.0)} to {formats.percent(scale.vmax or 0.0)}"
    covered = "seeds and questions" if several else "questions"
    return (
        f"Accuracy in %, with its 95 % interval over {covered}. Darker is higher, {shades}.{base}{own} Shades do "
        "not show whether two cells differ; the paired differences below do."
    )


def _scale(rows: Sequence[ServedRow]) -> Normalize:
    """Return the range of the recipes' accuracies, at least a tenth wide so that noise does not appear as contrast."""
    found = [cell.score.accuracy for row in rows if not row.is_base for cell in row.cells if cell.score] or [0.0, 1.0]
    low, high = min(found), max(found)
    spare = max(0.0, 0.1 - (high - low)) / 2
    return Normalize(max(0.0, low - spare), min(1.0, high + spare))


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeatMap:
    axes: Axes
    served: Served
    scale: Normalize
    wide: bool

    def draw(self) -> None:
        for vertical, row in enumerate(self.served.rows):
            for horizontal, way in enumerate(self.served.ways):
                cell = row.on(way.served_under)
                if cell is not None:
                    self._cell(row, cell, (horizontal, vertical))
        self._frame()

    def _cell(self, row: ServedRow, cell: ServedCell, at: tuple[int, int]) -> None:
        if cell.score is None:
            self._box(at, facecolor="none", edgecolor=MUTED, lw=0.8, ls=(0, (3, 2)))
            self._text(at, cell.state, color=MUTED, fontstyle="italic", fontsize=8.5 if self.wide else 5.5)
            return
        ground = to_hex(_COLOURS(self.scale(cell.score.accuracy))) if not row.is_base else BAND
        self._box(at, facecolor=ground, lw=0)
        if cell == row.own:
            self._box(at, facecolor="none", edgecolor=INK, lw=2.2 if self.wide else 1.4)
        self._score((row, cell), cell.score, at, INK if row.is_base else _legible(ground))

    def _score(self, of: tuple[ServedRow, ServedCell], score: Score, at: tuple[int, int], ink: str) -> None:
        (horizontal, vertical), shown = at, f"{100 * score.accuracy:.1f}{marks(*of, self.served)}"
        if not self.wide:
            self._text(at, shown, color=ink, fontsize=7.5)
            return
        only = missing_seeds(of[1], self.served)
        below = f"{100 * score.low:.1f}\N{EN DASH}{100 * score.high:.1f}" + (f"\n{only}" if only else "")
        self._text((horizontal, vertical - 0.15), shown, color=ink, fontsize=11, fontweight="bold")
        self._text((horizontal, vertical + (0.24 if only else 0.22)), below, color=ink, fontsize=6.5 if only else 7.5)

    def _box(self, at: tuple[int, int], **style: Any) -> None:  # noqa: ANN401 - Matplotlib's properties
        corner = (at[0] - _HALF + 0.03, at[1] - _HALF + 0.04)
        self.axes.add_patch(Rectangle(corner, 0.94, 0.92, **style))

    def _text(self, at: tuple[float, float], text: str, **style: Any) -> None:  # noqa: ANN401 - as above
        self.axes.text(*at, text, ha="center", va="center", **style)

    def _frame(self) -> None:
        axes, ways, rows = self.axes, self.served.ways, self.served.rows
        axes.set_xlim(-_HALF, max(_FEWEST_COLUMNS, len(ways)) - _HALF)
        axes.set_ylim(len(rows) - _HALF, -_HALF)
        axes.set_xticks(range(len(ways)), [_wrapped(way.title) for way in ways], color=INK)
        axes.tick_params(axis="x", labelrotation=0 if self.wide else 90, labelsize=9 if self.wide else 7.5)
        axes.set_yticks(range(len(rows)), [short(row.title) for row in rows], color=INK)
        axes.xaxis.tick_top()
        axes.set_title("Accuracy, %\ncolumns: served under; rows: trained under")
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)
        bare_ticks(axes)


def _legible(ground: str) -> str:
    """Return the text colour with more contrast (WCAG 2.1: at least 4.5 on any ground)."""
    channels = [((each + 0.055) / 1.055) ** 2.4 for each in to_rgb(ground)]  # sRGB; the scale has no darker channels
    luminance = sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), channels, strict=True))
    return _DARK_TEXT if (luminance + 0.05) ** 2 > 1.05 * 0.05 else _LIGHT_TEXT


def _wrapped(title: str) -> str:
    """Break a column's title into lines at spaces and dashes."""
    text = short(title)
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= _WRAPPED:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
