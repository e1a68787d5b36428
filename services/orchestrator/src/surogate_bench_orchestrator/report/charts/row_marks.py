"""What charts with a row for each recipe draw in their rows."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from surogate_bench_orchestrator.report.charts.style import GROUND, INK, MUTED, SeriesStyle


def whole_points(value: float, _position: int | None) -> str:
    """Format a tick of a difference of fractions in points."""
    return f"{100 * value:+.3g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def draw_interval(axes: Axes, position: float, bounds: tuple[float, float, float], style: SeriesStyle | None) -> None:
    """Draw an interval as a bar and its middle as a marker, hollow where there is no style."""
    low, middle, high = bounds
    colour = MUTED if style is None else style.colour
    axes.plot((low, high), (position, position), color=colour, lw=2.4, alpha=0.55, solid_capstyle="round")
    axes.plot(
        middle,
        position,
        marker="o" if style is None else style.marker,
        ms=7,
        ls="none",
        mfc=GROUND if style is None else colour,
        mec=colour if style is None else GROUND,
        mew=1.5 if style is None else 0.8,
    )


def draw_value(axes: Axes, position: float, text: str) -> None:
    """Write a figure to the right of a row."""
    axes.annotate(
        text,
        (1.0, position),
        xycoords=("axes fraction", "data"),
        xytext=(36, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=INK,
        fontsize=9,
        annotation_clip=False,
    )


def draw_note(axes: Axes, position: float, text: str) -> None:
    """Write a remark into a row without figures."""
    axes.annotate(
        text,
        (0.02, position),
        xycoords=("axes fraction", "data"),
        va="center",
        color=MUTED,
        fontsize=8.5,
        fontstyle="italic",
    )


def name_rows(axes: Axes, titles: Sequence[str], *, visible: bool) -> None:
    """Name the rows on the left, the first one on top.

    Args:
        axes: The panel.
        titles: A row each.
        visible: False for a panel next to another one with the same rows.
    """
    axes.set_yticks(range(len(titles)), list(titles), color=INK)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", labelleft=visible)
