"""Tables on a terminal drop columns before they cut a figure."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from surogate_bench_orchestrator.cli.terminal.live_table import render_progress
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.report.tables.fitted_table import Column, FittedTable
from surogate_bench_orchestrator.sweep.rows import ProgressRow, SweepProgress


def drawn(renderable: object, width: int) -> str:
    out = io.StringIO()
    Console(width=width, file=out).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize(("width", "names"), [(30, "abc"), (29, "abc"), (26, "ab"), (16, "ab"), (12, "a")])
def test_the_column_of_the_highest_rank_goes_first(width: int, names: str) -> None:
    table = FittedTable((Column(header="a"), Column(header="b", rank=1), Column(header="c", rank=2)))
    table.add_row([Text("0.12345678"), Text("1234"), Text("0.123456789")])
    lines = drawn(table, width).splitlines()
    assert lines[0].split() == list(names)
    assert lines[2].split() == ["0.12345678", "1234", "0.123456789"][: len(names)]


def test_texts_are_folded_and_wide_characters_counted() -> None:
    table = FittedTable((Column(header="name", folds=True), Column(header="x", rank=1)))
    table.add_row([Text("模型模型模型 and more"), Text("0.1234")])
    text = drawn(table, 22)
    assert "0.1234" in text
    assert max(Console().measure(line).maximum for line in text.splitlines()) <= 22


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40, 33])
def test_the_status_of_a_sweep_shows_accuracies_and_reasons_at_any_width(width: int) -> None:
    rows = (
        ProgressRow(name="model server", state="Done"),
        ProgressRow(
            name="qfp8-fp8-hybrid-s0", state="Succeeded", accuracy=0.82345, loss=0.312, tokens_per_second=8123.0,
            elapsed_s=71.0,
        ),
        ProgressRow(name="fp4-s0", state="Failed", failure=Failure("OutOfMemory", "memory ran out")),
        ProgressRow(name="fp8-s0", state="Training", step=123, total=300, loss=0.4, eta_s=90.0, detail="validating"),
    )  # fmt: skip
    text = drawn(render_progress(SweepProgress(title="small", rows=rows, finished=False), 100.0), width)
    words = text.split()
    assert max(map(len, text.splitlines())) <= width
    assert "0.823" in words
    assert "OutOfMemory" in text
    for word in ("Succeeded", "Failed", "Training"):
        assert word in words
