"""The report as one HTML file that needs nothing else."""

import base64
from dataclasses import dataclass

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.charts.accuracy import accuracy_caption
from surogate_bench_orchestrator.report.charts.draw import HEAT_MAP, OWN_CHART, Charts
from surogate_bench_orchestrator.report.charts.matrix import heat_map_caption
from surogate_bench_orchestrator.report.charts.served_as_trained import own_caption
from surogate_bench_orchestrator.report.model.merged import MERGED_TITLE
from surogate_bench_orchestrator.report.model.scores import STRICT
from surogate_bench_orchestrator.report.model.served import MATRIX_TITLE
from surogate_bench_orchestrator.report.model.summary import Row, Summary
from surogate_bench_orchestrator.report.tables.detail_table import detail_table
from surogate_bench_orchestrator.report.tables.further import FURTHER_TITLE, further_table
from surogate_bench_orchestrator.report.tables.main_table import MAIN_COLUMNS, ROW_TITLE, Kind
from surogate_bench_orchestrator.report.tables.matrix import matrix_tables
from surogate_bench_orchestrator.report.tables.merged import merged_table
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.scored_data import scored_texts


@dataclass(frozen=True, slots=True)
class _Meter:
    """Position of a score on a scale from 0 to the largest upper end in the table, in percent."""

    low: float
    middle: float
    high: float


def render_page(summary: Summary, charts: Charts, sweep: RecipeSweep) -> str:
    """Render the page; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("surogate_bench_orchestrator.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    source = environment.loader.get_source(environment, "report.css")[0] if environment.loader else ""
    scale = max((row.score.high for row in summary.all_rows() if row.score), default=1.0)
    page = environment.get_template("report.html.j2").render(
        summary=summary,
        charts=charts,
        accuracy_caption=accuracy_caption(summary),
        matrix_title=MATRIX_TITLE,
        matrix_tables=matrix_tables(summary),
        matrix_captions=_matrix_captions(summary),
        further_title=FURTHER_TITLE,
        further_tables=[(further, further_table(summary, further)) for further in summary.further],
        merged_title=MERGED_TITLE,
        merged_table=merged_table(summary.merged) if summary.merged else None,
        css=Markup(source),  # noqa: S704 - our own style sheet, not input
        formats=formats,
        main_columns=MAIN_COLUMNS,
        row_title=ROW_TITLE,
        kinds=Kind,
        detail_table=detail_table,
        strict=STRICT,
        served=any(row.training and row.training.served_validation_loss is not None for row in summary.rows),
        scored_texts=scored_texts(summary),
        meter=lambda row: _meter(row, scale),
        spec_yaml=sweep_yaml(sweep),
    )
    return f"{page.strip()}\n"


def sweep_yaml(sweep: RecipeSweep) -> str:
    """Return the whole sweep as YAML that gives the same spec hash when it is read again."""
    document = sweep.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _matrix_captions(summary: Summary) -> dict[str, str]:
    """Return the captions of the charts of the matrix, by name."""
    if summary.served is None:
        return {}
    return {
        OWN_CHART: own_caption(summary.served, summary.reference),
        HEAT_MAP: heat_map_caption(summary.served),
    }


def _meter(row: Row, scale: float) -> _Meter | None:
    if row.score is None or not scale:
        return None
    return _Meter(*(round(100 * value / scale, 2) for value in (row.score.low, row.score.accuracy, row.score.high)))


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
