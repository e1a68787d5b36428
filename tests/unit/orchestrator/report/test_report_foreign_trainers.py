"""Rows of trainers of other software: figures that they reported, and no others, paired by seed."""

import csv
import io
from typing import Any

import pytest
from rich.console import Console
from worlds.report import MakeWorld, ReportWorld, failures_of

from surogate_bench_orchestrator.report.analysis.records import read_records
from surogate_bench_orchestrator.report.build import build_report
from surogate_bench_orchestrator.report.charts.draw import draw_charts
from surogate_bench_orchestrator.report.model.summary import Row, Summary
from surogate_bench_orchestrator.report.page import render_page
from surogate_bench_orchestrator.report.tables.csv.summary import to_csv
from surogate_bench_orchestrator.report.tables.markdown import to_markdown
from surogate_bench_orchestrator.report.tables.terminal import render_terminal_table
from surogate_bench_orchestrator.report.text.formats import PILCROW

TRAINER = {"name": "other", "command": ["other", "train"], "trained_under": "fp8"}


@pytest.fixture
def world(report_world: MakeWorld) -> MakeWorld:
    """A sweep of two recipes and a trainer, all scored."""

    def make(**changes: Any) -> ReportWorld:
        made = report_world(recipes=["bf16", "fp8"], trainers=[TRAINER], **changes)
        made.publish_everything()
        for seed in made.sweep.seeds:
            made.publish_foreign_train("other", seed, warnings=("It is slow.",))
            made.publish_eval(f"other-s{seed}")
        return made

    return make


def printed(summary: Summary) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(render_terminal_table(summary))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def summary_of(world: ReportWorld, failures: dict[str, str] | None = None) -> Summary:
    return build_report(world.store, world.sweep, failures_of(failures or {})).summary


def row_of(summary: Summary) -> Row:
    (row,) = (row for row in summary.rows if row.key == "other")
    return row


def test_a_trainer_has_a_row_over_its_seeds_that_is_paired_with_the_reference_by_seed(world: MakeWorld) -> None:
    scored = world(seeds=[0, 1, 2])
    summary = summary_of(scored)
    row = row_of(summary)
    assert [each.key for each in summary.rows] == ["base", "bf16", "fp8", "other"]
    assert [each.key for each in summary.runs if each.recipe == "other"] == ["other-s0", "other-s1", "other-s2"]
    assert (row.state, row.recipe, row.seeds, row.is_base, row.is_imported) == (
        "succeeded", "other", (0, 1, 2), False, False,
    )  # fmt: skip
    assert row.versus_reference is not None
    assert (row.versus_reference.seeds, row.versus_reference.of_all_seeds) == ((0, 1, 2), True)
    assert row.versus_reference.p_adjusted is not None
    ours, theirs = ([sum(scored.outcomes[f"{name}-s{seed}"]) for seed in range(3)] for name in ("other", "bf16"))
    assert row.versus_reference.delta == pytest.approx((sum(ours) - sum(theirs)) / 1500)
    assert not any("not seeds" in note for note in summary.footnotes)


def test_figures_that_were_not_reported_are_dashes_and_empty_cells_and_never_zero(world: MakeWorld) -> None:
    scored = world()
    summary = summary_of(scored)
    row = row_of(summary)
    assert row.training is not None
    known = row.training.model_dump(exclude_none=True)
    assert known == {
        "steps": 10, "side_by_side": 1, "final_train_loss": 0.5, "served_validation_loss": 0.42, "resumed_from_step": 0,
        "kept_layers": (),
    }  # fmt: skip
    (line,) = (line for line in csv.DictReader(io.StringIO(to_csv(summary))) if line["key"] == "other")
    assert (line["tokens_per_second"], line["weight_bytes"], line["threads"]) == ("", "", "")
    assert (line["final_train_loss"], line["source"], line["trained_under"]) == ("0.5", "other train", "fp8")
    text = to_markdown(summary, {})
    (main,) = (each for each in text.splitlines() if each.startswith(f"| other {PILCROW}") and each.count("–") > 5)
    assert main.endswith("| – | – | – | – | – | – |")


def test_that_other_software_trained_it_is_stated_wherever_the_row_is_shown(world: MakeWorld) -> None:
    scored = world()
    summary = summary_of(scored)
    charts = draw_charts(summary, read_records(scored.store, scored.sweep), scored.sweep)
    explained = f"{PILCROW} other: trained by other software under fp8, as the sweep states: other train"
    assert explained in summary.footnotes
    assert any("other was trained by other software, which received the data" in note for note in summary.notes)
    assert not any("was not trained by this sweep" in note for note in summary.notes)
    assert not any("procedure version" in note for note in summary.notes)
    assert "other-s0: It is slow." in summary.warnings
    assert f"other {PILCROW}" in render_page(summary, charts, scored.sweep)
    assert f"other {PILCROW}" in printed(summary)
    assert {chart.name for chart in charts.losses} == {"loss-bf16", "loss-fp8", "loss-other"}
    assert "validation as served 0.420" in next(chart.alt for chart in charts.losses if chart.name == "loss-other")
    assert charts.accuracy is not None
    assert "other" in charts.accuracy.alt


def test_a_failed_trainer_is_a_failed_row_with_its_reason(report_world: MakeWorld) -> None:
    scored = report_world(recipes=["bf16", "fp8"], trainers=[TRAINER])
    scored.publish_everything()
    failure = "ForeignTrainerError: the command ended with exit code 1."
    row = row_of(summary_of(scored, {"other-s0": failure}))
    assert (row.state, row.reason, row.training) == ("failed", failure, None)
    assert row_of(summary_of(scored)).reason == "not trained yet"


def test_served_as_trained_it_stands_in_the_matrix_and_not_among_the_splits_of_recipes(report_world: MakeWorld) -> None:
    scored = report_world(recipes=["bf16", "fp8"], trainers=[TRAINER], serving={"under": ["own"]})
    scored.publish_everything()
    scored.publish_foreign_train("other")
    scored.publish_eval("other-s0")
    scored.publish_eval("other-s0", under="fp8")
    served = summary_of(scored).served
    assert served is not None
    (row,) = (row for row in served.rows if row.key == "other")
    assert row.own is not None
    assert row.own.score is not None
    assert [split.recipe for split in served.splits] == ["fp8"]
