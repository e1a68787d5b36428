"""The main table: a column is defined once, and appears in Markdown, on the page and on the terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console
from worlds.report import MakeWorld, failures_of

from surogate_bench_orchestrator.report import build_report, page
from surogate_bench_orchestrator.report.charts.draw import Charts
from surogate_bench_orchestrator.report.tables import main_table, terminal
from surogate_bench_orchestrator.report.tables import markdown as tables
from surogate_bench_orchestrator.report.tables.main_table import MAIN_COLUMNS

NO_CHARTS = Charts(accuracy=None, matrix=(), overlay=None, losses=())


def test_a_column_that_is_added_to_the_list_is_in_every_output(
    report_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_run("bf16")
    added = replace(
        MAIN_COLUMNS[-1], header=lambda _summary, _rows: "odd\ncolumn", cell=lambda row, _: f"cell of {row.key}", rank=0
    )
    for module in (main_table, tables, page, terminal):
        monkeypatch.setattr(module, "MAIN_COLUMNS", (*MAIN_COLUMNS, added))
    summary = build_report(world.store, world.sweep, {}).summary
    out = io.StringIO()
    Console(width=300, file=out).print(terminal.render_terminal_table(summary))
    markdown, html = tables.to_markdown(summary, {}), page.render_page(summary, NO_CHARTS, world.sweep)
    assert "| odd column |" in markdown
    assert "odd<br>column</th>" in html
    assert "column" in out.getvalue()
    for key in ("bf16", "fp8"):
        assert all(f"cell of {key}" in text for text in (markdown, html, out.getvalue()))


def test_a_row_without_a_score_has_its_state_over_the_columns_of_the_score(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_run("bf16")
    summary = build_report(world.store, world.sweep, failures_of({"fp8-s0": "no room"})).summary
    html = page.render_page(summary, NO_CHARTS, world.sweep)
    assert '<td colspan="4"><span class="state failed">failed</span><span class="reason">no room</span></td>' in html
