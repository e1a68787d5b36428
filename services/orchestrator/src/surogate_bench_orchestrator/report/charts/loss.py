"""Loss charts: raw training loss thin, its moving average thick, validation loss as points."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from surogate_bench_orchestrator.report.charts.style import (
    GRID,
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

_X_LABEL, _Y_LABEL = "optimizer step", "loss (nats/token)"
_SERVED = "validation, as served"
_ZOOM_FROM = 0.5
_WIDE_LEGEND, _NARROW_LEGEND, _LEGEND_HANDLE = 120, 58, 8  # characters
_MIN_WINDOW, _MAX_WINDOW, _WINDOWS_PER_RUN = 5, 50, 15

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Losses of one run, in nats per token: training (one per step) and validation."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    validation: tuple[tuple[int, float], ...]
    """Steps and losses in the precision of the recipe."""
    served: tuple[tuple[int, float], ...] = ()
    """The last step, and the loss of the finished adapter on the served base; or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeCurves:
    """One recipe's curves, one per seed, and how they are drawn."""

    title: str
    style: SeriesStyle
    curves: tuple[Curve, ...]

    def mean(self) -> Curve:
        """Return the mean over the seeds, at every step that at least one of them logged."""
        training: defaultdict[int, list[float]] = defaultdict(list)
        validation: defaultdict[int, list[float]] = defaultdict(list)
        served: defaultdict[int, list[float]] = defaultdict(list)
        for curve in self.curves:
            for step, loss in zip(curve.steps, curve.losses, strict=True):
                training[step].append(loss)
            for step, loss in curve.validation:
                validation[step].append(loss)
            for step, loss in curve.served:
                served[step].append(loss)
        return Curve(
            steps=tuple(sorted(training)),
            losses=tuple(sum(training[step]) / len(training[step]) for step in sorted(training)),
            validation=tuple((step, sum(validation[step]) / len(validation[step])) for step in sorted(validation)),
            served=tuple((step, sum(served[step]) / len(served[step])) for step in sorted(served)),
        )


def moving_average(losses: Sequence[float], window: int) -> Floats:
    """Return the mean of the ``window`` losses around each one, in the shape and order of ``losses``.

    The window shrinks on both sides at the start, where the loss falls fast, and ahead only at the end.
    """
    sums = np.cumsum(np.concatenate(([0.0], np.asarray(losses, dtype=np.float64))))
    index = np.arange(len(losses))
    before = np.minimum(index, window // 2)
    starts, ends = index - before, np.minimum(index + before + 1, len(losses))
    means: Floats = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def averaging_window(steps: int) -> int:
    """Return the width of the moving average for a run of ``steps`` steps: an odd number of steps."""
    return max(_MIN_WINDOW, min(_MAX_WINDOW, steps // _WINDOWS_PER_RUN)) | 1


def draw_loss(recipe: RecipeCurves, *, limits: tuple[float, float], epoch_ends: Sequence[float]) -> Figure:
    """Draw one recipe.

    Args:
        recipe: What to draw.
        limits: Loss axis, the same for all recipes so that their charts can be compared.
        epoch_ends: Optimizer steps at which an epoch ended, marked by a dotted line.
    """
    figure = new_figure(NARROW_INCHES, 3.2)
    axes = figure.add_subplot()
    colour = recipe.style.colour
    window = averaging_window(max(len(curve.steps) for curve in recipe.curves))
    for index, curve in enumerate(recipe.curves):
        first = index == 0
        averages = moving_average(curve.losses, window)
        axes.plot(curve.steps, curve.losses, color=colour, lw=0.7, alpha=0.45, label="training" if first else None)
        axes.plot(
            curve.steps, averages, color=colour, lw=2.1, label=f"moving average, {window} steps" if first else None
        )
        if curve.validation:
            axes.plot(
                *zip(*curve.validation, strict=True),
                ls="none",
                marker="o",
                ms=5.2,
                mfc=GROUND,
                mec=colour,
                mew=1.4,
                label="validation, under the recipe" if first else None,
            )
        if curve.served:
            _draw_served(axes, curve, colour, label=_SERVED if first else None)
    _finish(axes, f"{recipe.title}: loss", limits)
    _mark_epochs(axes, epoch_ends, labelled=True)
    axes.legend(loc="upper right", handlelength=1.6)
    return lay_out(figure)


def loss_limits(recipes: Sequence[RecipeCurves]) -> tuple[float, float]:
    """Return limits of the loss axis that hold every point of every recipe."""
    points = [
        loss
        for recipe in recipes
        for curve in recipe.curves
        for loss in (*curve.losses, *(value for _, value in (*curve.validation, *curve.served)))
    ]
    return _padded(min(points), max(points))


def draw_overlay(recipes: Sequence[RecipeCurves], *, layout: Layout, epoch_ends: Sequence[float]) -> Figure:
    """Draw all recipes into one chart: the whole run, and its last part enlarged."""
    wide = layout == "wide"
    figure = new_figure(WIDE_INCHES, 4.4) if wide else new_figure(NARROW_INCHES, 7.2)
    whole, zoom = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
    means = [recipe.mean() for recipe in recipes]
    last_step = max(curve.steps[-1] for curve in means)
    window = averaging_window(max(len(curve.steps) for curve in means))
    start = last_step * _ZOOM_FROM
    tail = []
    for recipe, curve in zip(recipes, means, strict=True):
        averages = moving_average(curve.losses, window)
        for axes in (whole, zoom):
            _draw_mean(axes, recipe, curve, averages)
        if curve.served:
            _draw_served(zoom, curve, recipe.style.colour, label=None)
        tail += [value for step, value in zip(curve.steps, averages, strict=True) if step >= start]
        tail += [value for step, value in (*curve.validation, *curve.served) if step >= start]
    _finish(whole, f"All recipes, moving average of {window} steps", None)
    _finish(zoom, "The last half, enlarged", _padded(min(tail), max(tail)))
    zoom.set_xlim(start, last_step * 1.015)
    for axes in (whole, zoom):
        _mark_epochs(axes, epoch_ends, labelled=False)
    if any(curve.served for curve in means):  # outside of the axes: for the legend alone
        _draw_served(whole, Curve(steps=(), losses=(), validation=(), served=((0, nan),)), MUTED, label=_SERVED)
    handles, labels = whole.get_legend_handles_labels()
    columns = _legend_columns(labels, _WIDE_LEGEND if wide else _NARROW_LEGEND)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=3.2, columnspacing=1.4)
    return lay_out(figure)


def _legend_columns(labels: Sequence[str], room: int) -> int:
    """Return the number of columns: all if the labels fit into ``room`` characters, else by the longest label."""
    if sum(len(label) + _LEGEND_HANDLE for label in labels) <= room:
        return len(labels)
    return max(1, room // (max(map(len, labels)) + _LEGEND_HANDLE))


def _draw_mean(axes: Axes, recipe: RecipeCurves, curve: Curve, averages: Floats) -> None:
    style = recipe.style
    axes.plot(
        curve.steps,
        averages,
        color=style.colour,
        lw=1.7,
        dashes=style.dashes or (1, 0),
        marker=style.marker,
        markevery=[],
        ms=4.4,
        label=recipe.title,
    )
    if curve.validation:
        axes.plot(
            *zip(*curve.validation, strict=True),
            ls="none",
            marker=style.marker,
            ms=4.4,
            color=style.colour,
            mec=GROUND,
            mew=0.5,
        )


def _draw_served(axes: Axes, curve: Curve, colour: str, *, label: str | None) -> None:
    axes.plot(
        *zip(*curve.served, strict=True), ls="none", marker="*", ms=11, color=colour, mec=GROUND, mew=0.8, label=label
    )


def _finish(axes: Axes, title: str, limits: tuple[float, float] | None) -> None:
    axes.set_title(title)
    axes.set_xlabel(_X_LABEL)
    axes.set_ylabel(_Y_LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(visible=False, axis="x")
    axes.margins(x=0.015)
    if limits is not None:
        axes.set_ylim(*limits)
    bare_ticks(axes)


def _mark_epochs(axes: Axes, epoch_ends: Sequence[float], *, labelled: bool) -> None:
    for number, step in enumerate(epoch_ends, start=1):
        axes.axvline(step, color=GRID if not labelled else MUTED, lw=0.9, ls=(0, (1, 2)), zorder=0.5)
        if labelled:
            axes.annotate(
                f"epoch {number} ends",
                (step, 0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 4),
                textcoords="offset points",
                color=MUTED,
                fontsize=7.5,
            )


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or 0.05
    return low - pad, high + pad
