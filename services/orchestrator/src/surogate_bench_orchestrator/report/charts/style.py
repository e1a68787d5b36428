"""Style and rendering of charts: the same figures give the same bytes.

Charts are drawn in one set of light colours. PNGs keep them; in SVGs each becomes a CSS variable, so that a chart
follows the reader's light or dark scheme.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK, MUTED, GRID, BAND, GROUND = "#1f2328", "#656d77", "#e3e7ec", "#eef1f5", "#ffffff"
_DARK = {INK: "#e6edf3", MUTED: "#9aa4af", GRID: "#2c333c", BAND: "#222932", GROUND: "#0f1318"}

Layout = Literal["wide", "narrow"]
"""``wide`` for a desktop page and the PNG, ``narrow`` for a phone."""

WIDE_INCHES, NARROW_INCHES = 10.0, 4.8
_PNG_DPI = 200

_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "text.parse_math": False,  # titles come from the user: a dollar sign is a dollar sign
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": GROUND,
    "svg.fonttype": "none",
    "svg.hashsalt": "surogate-bench",
    "path.simplify_threshold": 0.2,
}


@dataclass(frozen=True, slots=True)
class SeriesStyle:
    """Colour, dash pattern (points on, off, …; empty is solid) and marker of one recipe in every chart."""

    colour: str
    dark_colour: str
    dashes: tuple[float, ...]
    marker: str


# Okabe and Ito's palette without its yellow, which vanishes on white; black is left to the reference.
_SERIES = (
    SeriesStyle("#24292e", "#f0f3f6", (), "o"),
    SeriesStyle("#0072b2", "#4ba3e3", (7, 1.6), "s"),
    SeriesStyle("#d55e00", "#ff8b3d", (3.5, 1.4), "^"),
    SeriesStyle("#009e73", "#2bc99c", (8, 1.6, 1.6, 1.6), "D"),
    SeriesStyle("#cc79a7", "#e79cc6", (1.6, 1.2), "v"),
    SeriesStyle("#e69f00", "#f5bd45", (11, 1.8, 4, 1.8), "P"),
    SeriesStyle("#56b4e9", "#93d3f8", (5, 1.2, 1.4, 1.2, 1.4, 1.2), "X"),
)


def series_style(index: int) -> SeriesStyle:
    """Return the style of the recipe at ``index`` in the sweep; styles repeat from the eighth on."""
    return _SERIES[index % len(_SERIES)]


@contextmanager
def house_style() -> Iterator[None]:
    """Apply Matplotlib's defaults with our changes, whatever the user's matplotlibrc contains; undone afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of that size in inches, outside pyplot's state."""
    spacing = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06, hspace=0.08, wspace=0.04)
    figure = Figure(figsize=(width, height), layout=spacing)
    FigureCanvasAgg(figure)
    return figure


def lay_out(figure: Figure) -> Figure:
    """Compute the layout once for all formats that are rendered."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def bare_ticks(axes: Axes) -> None:
    """Keep tick labels and drop tick marks."""
    axes.tick_params(length=0)


def to_png(figure: Figure) -> bytes:
    """Render on white, without any date."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return out.getvalue()


def to_svg(figure: Figure, label: str) -> bytes:
    """Render on a transparent ground with colours that follow the reader's scheme.

    Args:
        figure: What to render.
        label: Read out in place of the picture; plain text.
    """
    out = io.StringIO()
    # "Date", "Creator" and the rest would put a time and an address into the file.
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", metadata=metadata, transparent=True)
    return _themed(out.getvalue(), label).encode()


def _themed(svg: str, label: str) -> str:
    colours = {**_DARK, **{style.colour: style.dark_colour for style in _SERIES}}
    names = {colour: f"--c{index}" for index, colour in enumerate(colours)}
    light = "".join(f"{names[colour]}:{colour};" for colour in colours)
    dark = "".join(f"{names[colour]}:{other};" for colour, other in colours.items())
    body = svg[svg.index("<svg") :]
    for colour, name in names.items():
        body = body.replace(colour, f"var({name})")
    body = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", _FONTS, body)
    sheet = f"<style>:root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}</style>"
    escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    end_of_tag = body.index(">") + 1
    return f"{body[:end_of_tag]}<title>{escaped}</title>{sheet}{body[end_of_tag:]}"
