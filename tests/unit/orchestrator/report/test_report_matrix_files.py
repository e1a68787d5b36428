"""The matrix in the files of a report: CSV, Markdown, page and charts agree, and are there only where needed."""

import io
import json

import pytest
from rich.console import Console
from worlds.report import MakeWorld, ReportWorld

from surogate_bench_orchestrator.report import build_report, render_terminal_table, write_report
from surogate_bench_orchestrator.report.tables.csv.matrix import MATRIX_COLUMNS
from surogate_bench_orchestrator.report.tables.matrix import matrix_tables

HEADING = "Trained under \N{MULTIPLICATION SIGN} served under"
PNG = b"\x89PNG\r\n\x1a\n"


def write(world: ReportWorld) -> None:
    write_report(world.store, build_report(world.store, world.sweep, {}))


def names(world: ReportWorld) -> set[str]:
    return {info.key.removeprefix(f"{world.layout.report}/") for info in world.store.list(world.layout.report)}


def test_a_sweep_that_is_served_as_published_alone_has_no_file_and_no_heading_of_the_matrix(
    report_world: MakeWorld,
) -> None:
    world = report_world(recipes=["bf16", "fp4"])
    world.publish_everything()
    write(world)
    assert not {"matrix.csv", "charts/matrix.png", "charts/served-as-trained.png"} & names(world)
    assert HEADING not in world.report_file("report.html").decode() + world.report_file("summary.md").decode()


def test_summary_page_and_csv_have_the_same_matrix(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving={"under": ["all"]})
    world.publish_everything()
    write(world)
    document = json.loads(world.report_file("summary.json"))["served"]
    lines = world.csv_lines("matrix.csv")
    page, text = world.report_file("report.html").decode(), world.report_file("summary.md").decode()
    cells = [(row, cell) for row in document["rows"] for cell in row["cells"]]
    assert tuple(lines[0]) == MATRIX_COLUMNS
    assert len(lines) == len(cells) == 4 * 3
    for (row, cell), line in zip(cells, lines, strict=True):
        assert (line["key"], line["served_under"]) == (row["key"], cell["served_under"] or "bf16")
        assert float(line["accuracy"]) == cell["score"]["accuracy"]
        assert (line["own"] == "true") == (row["recipe"] is not None and row["recipe"] == cell["served_under"])
        shown = f"{cell['score']['accuracy']:.4f}"
        assert shown in page
        assert shown in text
        if cell["versus_published"]:
            assert float(line["delta_published"]) == cell["versus_published"]["delta"]
    for sentence in [*(split["sentence"] for split in document["splits"]), document["quantizing"]]:
        assert sentence in page
        assert sentence in text
    assert HEADING in page
    assert f"## {HEADING}" in text


def test_charts_of_the_matrix_are_published_for_every_reader(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving={"under": ["own"]})
    world.publish_everything()
    write(world)
    page, text = world.report_file("report.html").decode(), world.report_file("summary.md").decode()
    for name in ("matrix", "served-as-trained"):
        assert world.report_file(f"charts/{name}.png").startswith(PNG)
        assert world.report_file(f"charts/{name}.svg").startswith(b"<svg")
        assert f"(charts/{name}.png)" in text
    right = sum(world.outcomes["fp4-s0 under fp4"])
    assert f"FP4 {right / 5:.1f} %" in world.report_file("charts/matrix.svg").decode()
    assert 'alt="Accuracy as published and as trained: FP4' in page


def test_the_same_matrix_gives_the_same_bytes(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving={"under": ["own"]})
    world.publish_everything()
    write(world)
    first = {name: world.report_file(name) for name in names(world)}
    write_report(world.store, build_report(world.store, world.sweep, {}), force=True)
    assert {name: world.report_file(name) for name in names(world)} == first


def test_charts_are_drawn_where_cells_are_missing_and_left_out_where_all_are(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], seeds=[0, 1], serving={"under": ["own"]})
    world.publish_run("fp4", 0)
    world.publish_run("fp4", 1)
    write(world)
    assert "charts/matrix.png" in names(world)
    assert "charts/served-as-trained.png" not in names(world)
    world.publish_eval("fp4-s1", under="fp4")
    write(world)
    assert {"charts/matrix.png", "charts/served-as-trained.png"} <= names(world)


@pytest.mark.parametrize(
    ("under", "titles"),
    [
        ("own", ["As published and as trained"]),
        (
            "all",
            [
                "As published and as trained",
                "Accuracy",
                "Difference to the same adapter as published, points",
                "Difference to BF16 served the same way, points",
            ],
        ),
    ],
)
def test_tables_have_a_column_for_each_way_only_where_recipes_are_served_under_others(
    report_world: MakeWorld, under: str, titles: list[str]
) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving={"under": [under]})
    world.publish_everything()
    tables = matrix_tables(build_report(world.store, world.sweep, {}).summary)
    assert [table.title for table in tables] == titles
    assert [row[0] for row in tables[0].rows] == ["BF16", "FP8", "FP4"]
    assert all(len(row) == len(table.header) for table in tables for row in table.rows)


def test_a_cell_of_fewer_seeds_is_marked_in_the_table(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], seeds=[0, 1], serving={"under": ["own"]})
    for seed in (0, 1):
        world.publish_run("bf16", seed)
        world.publish_run("fp4", seed)
    world.publish_eval("fp4-s1", under="fp4")
    (table,) = matrix_tables(build_report(world.store, world.sweep, {}).summary)
    (cells,) = (row for row in table.rows if row[0] == "FP4")
    assert cells[2].endswith("\N{DOUBLE DAGGER}), seed 1 only")
    assert all("\N{DAGGER}" in cell for cell in cells[3:6])
    assert "seed" not in cells[1]


def test_the_terminal_shows_the_split_of_each_loss(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving={"under": ["own"]})
    world.publish_everything()
    output = io.StringIO()
    summary = build_report(world.store, world.sweep, {}).summary
    Console(file=output, width=2000).print(render_terminal_table(summary))
    assert summary.served is not None
    assert summary.served.splits[0].sentence in output.getvalue()


def test_the_caption_of_the_accuracy_chart_describes_the_panels_that_are_drawn(report_world: MakeWorld) -> None:
    alone, several = report_world(recipes=["bf16"]), report_world(recipes=["bf16", "fp4"], name="several")
    for world in (alone, several):
        world.publish_everything()
        write(world)
    assert "anel:" not in alone.report_file("report.html").decode()
    assert "<figcaption>Accuracy; the grey band" in alone.report_file("report.html").decode()
    assert "Second panel: the paired difference" in several.report_file("report.html").decode()
