"""Every chart of a report, as bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.analysis.records import SweepRecords, TrainRecord
from surogate_bench_orchestrator.report.charts.accuracy import draw_accuracy
from surogate_bench_orchestrator.report.charts.loss import Curve, RecipeCurves, draw_loss, draw_overlay, loss_limits
from surogate_bench_orchestrator.report.charts.matrix import draw_heat_map
from surogate_bench_orchestrator.report.charts.served_as_trained import draw_own
from surogate_bench_orchestrator.report.charts.style import SeriesStyle, house_style, series_style, to_png, to_svg
from surogate_bench_orchestrator.report.model.served import MATRIX_TITLE, Served, ServedCell
from surogate_bench_orchestrator.report.model.summary import Summary
from surogate_bench_orchestrator.report.text import formats

OWN_CHART, HEAT_MAP = "served-as-trained", "matrix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart in every form in which it is published."""

    name: str
    """File name without its ending."""
    caption: str
    alt: str
    png: bytes
    svg: bytes
    narrow_svg: bytes | None
    """Form for phones, where the chart is too wide for them; None where one form serves both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    """The charts of one report; those without data are missing."""

    accuracy: Chart | None
    matrix: tuple[Chart, ...]
    """As published against as trained, and the heat map; empty where the base is served in one way."""
    overlay: Chart | None
    losses: tuple[Chart, ...]

    def __iter__(self) -> Iterator[Chart]:
        return (chart for chart in (self.accuracy, *self.matrix, self.overlay, *self.losses) if chart is not None)


def draw_charts(summary: Summary, records: SweepRecords, sweep: RecipeSweep) -> Charts:
    """Draw what there is data for; the same summary and records give the same bytes."""
    curves = {
        each.name: RecipeCurves(title=formats.short(each.title), style=series_style(index), curves=found)
        for index, each in enumerate(sweep.trained)
        if (found := _curves(records, each.name))
    }
    epoch_ends = _epoch_ends(sweep, list(curves.values()))
    with house_style():
        return Charts(
            accuracy=_accuracy(summary, sweep) if any(row.score for row in summary.rows) else None,
            matrix=_matrix(summary, summary.served, sweep) if summary.served else (),
            overlay=_overlay(list(curves.values()), epoch_ends) if curves else None,
            losses=tuple(_loss(name, curves, epoch_ends) for name in curves),
        )


def _accuracy(summary: Summary, sweep: RecipeSweep) -> Chart:
    styles = _styles(sweep)
    alt = "Accuracy by recipe: " + "; ".join(
        f"{row.title} {formats.percent(row.score.accuracy)}" if row.score else f"{row.title} {row.state}"
        for row in summary.rows
    )
    wide = draw_accuracy(summary, styles, layout="wide")
    return Chart(
        name="accuracy",
        caption="Accuracy",
        alt=alt,
        png=to_png(wide),
        svg=to_svg(wide, alt),
        narrow_svg=to_svg(draw_accuracy(summary, styles, layout="narrow"), alt),
    )


def _styles(sweep: RecipeSweep) -> dict[str, SeriesStyle]:
    names = [*(each.name for each in sweep.trained), *(adapter.name for adapter in sweep.adapters)]
    return {name: series_style(index) for index, name in enumerate(names)}


def _matrix(summary: Summary, served: Served, sweep: RecipeSweep) -> tuple[Chart, ...]:
    """Draw what there are accuracies for."""
    own = any(row.own and row.own.score for row in served.rows)
    cells = any(cell.score for row in served.rows for cell in row.cells)
    return (
        *((_own(summary, served, sweep),) if own else ()),
        *((_heat_map(served),) if cells else ()),
    )


def _own(summary: Summary, served: Served, sweep: RecipeSweep) -> Chart:
    alt = "Accuracy as published and as trained: " + "; ".join(
        f"{row.title} {_percent(row.published)} and {_percent(row.own)}" for row in served.rows if row.own
    )
    wide = draw_own(summary, served, _styles(sweep), layout="wide")
    return Chart(
        name=OWN_CHART,
        caption="Served as published and as trained",
        alt=alt,
        png=to_png(wide),
        svg=to_svg(wide, alt),
        narrow_svg=to_svg(draw_own(summary, served, _styles(sweep), layout="narrow"), alt),
    )


def _heat_map(served: Served) -> Chart:
    alt = "Accuracy by what was trained under (rows) and served under: " + "; ".join(
        f"{row.title}: " + ", ".join(f"{served.title_of(cell.served_under)} {_percent(cell)}" for cell in row.cells)
        for row in served.rows
    )
    wide = draw_heat_map(served, layout="wide")
    return Chart(
        name=HEAT_MAP,
        caption=MATRIX_TITLE,
        alt=alt,
        png=to_png(wide),
        svg=to_svg(wide, alt),
        narrow_svg=to_svg(draw_heat_map(served, layout="narrow"), alt),
    )


def _percent(cell: ServedCell | None) -> str:
    if cell is None or cell.score is None:
        return cell.state if cell else formats.ABSENT
    return formats.percent(cell.score.accuracy)


def _overlay(recipes: Sequence[RecipeCurves], epoch_ends: Sequence[float]) -> Chart:
    alt = f"Loss of {', '.join(recipe.title for recipe in recipes)} over the optimizer steps, in one chart"
    wide = draw_overlay(recipes, layout="wide", epoch_ends=epoch_ends)
    return Chart(
        name="overlay",
        caption="Loss of all recipes",
        alt=alt,
        png=to_png(wide),
        svg=to_svg(wide, alt),
        narrow_svg=to_svg(draw_overlay(recipes, layout="narrow", epoch_ends=epoch_ends), alt),
    )


def _loss(name: str, curves: dict[str, RecipeCurves], epoch_ends: Sequence[float]) -> Chart:
    recipe = curves[name]
    mean = recipe.mean()
    alt = f"Loss of {recipe.title}: training from {mean.losses[0]:.2f} to {mean.losses[-1]:.2f} nats per token"
    if mean.validation:
        alt += f", validation under the recipe {mean.validation[-1][1]:.3f} at the end"
    if mean.served:
        alt += f", validation as served {mean.served[-1][1]:.3f}"
    figure = draw_loss(recipe, limits=loss_limits(list(curves.values())), epoch_ends=epoch_ends)
    return Chart(
        name=f"loss-{name}",
        caption=f"Loss of {recipe.title}",
        alt=alt,
        png=to_png(figure),
        svg=to_svg(figure, alt),
        narrow_svg=None,
    )


def _curves(records: SweepRecords, recipe: str) -> tuple[Curve, ...]:
    found = (_curve(run.train) for run in records.of_recipe(recipe) if run.train is not None)
    return tuple(curve for curve in found if curve.steps)


def _curve(record: TrainRecord) -> Curve:
    """Return the losses of one run; where training diverged, steps without a finite loss are left out."""
    training = [(line.step, line.loss) for line in record.metrics if line.loss is not None and isfinite(line.loss)]
    validation = [(line.step, line.eval_loss) for line in record.metrics if line.eval_loss is not None]
    steps, served = record.result.steps or 0, record.result.served_validation_loss
    return Curve(
        steps=tuple(step for step, _ in training),
        losses=tuple(loss for _, loss in training),
        validation=tuple((step, loss) for step, loss in validation if isfinite(loss)),
        served=() if served is None else ((steps, served),),
    )


def _epoch_ends(sweep: RecipeSweep, recipes: Sequence[RecipeCurves]) -> tuple[float, ...]:
    epochs = sweep.training.epochs
    if epochs is None or not recipes:
        return ()
    steps = max(curve.steps[-1] for recipe in recipes for curve in recipe.curves)
    whole = range(1, int(epochs) + 1)
    return tuple(number * steps / epochs for number in whole if number < epochs)
