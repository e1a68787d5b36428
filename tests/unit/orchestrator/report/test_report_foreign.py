"""Rows of adapters that were trained elsewhere, beside those of recipes."""

import csv
import io
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from worlds.report import MakeWorld, ReportWorld, failures_of

from surogate_bench.machine.hardware import Hardware
from surogate_bench.results import ImportResult
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import publish_stage
from surogate_bench_orchestrator.report.analysis.records import read_records
from surogate_bench_orchestrator.report.build import build_report
from surogate_bench_orchestrator.report.charts.draw import draw_charts
from surogate_bench_orchestrator.report.model.summary import Row, Summary
from surogate_bench_orchestrator.report.page import render_page
from surogate_bench_orchestrator.report.tables.csv.summary import to_csv
from surogate_bench_orchestrator.report.tables.markdown import to_markdown
from surogate_bench_orchestrator.report.text.formats import PILCROW

ADAPTER = {"name": "theirs", "hub": "lab/adapter", "trained_under": "qbnb"}


def publish_import(world: ReportWorld, **changes: Any) -> None:
    folder = world.folder / "theirs-import"
    folder.mkdir(parents=True)
    result = ImportResult(
        source="lab/adapter@0123456789", revision="0123456789", source_files={}, adapter_sha256="d" * 64, ranks=(8,),
        alphas=(16.0,), use_rslora=True, target_modules=("q_proj",), layers=4, parameters=100, peft_version="0.21.2",
        base_model="lab/base", trained_under="qbnb", warnings=("Its base model has another name.",),
    ).model_copy(update=changes)  # fmt: skip
    manifest = Manifest(
        stage="import", run="theirs", spec_hash=world.sweep.spec_hash, created=datetime(2026, 1, 1, tzinfo=UTC),
        files={}, hardware=Hardware(), versions={"peft": "0.21.2"}, result=result,
    )  # fmt: skip
    assert publish_stage(world.store, world.layout.train("theirs"), folder, manifest)


@pytest.fixture
def world(report_world: MakeWorld) -> MakeWorld:
    """A sweep of two recipes and an adapter, all scored."""

    def make(**changes: Any) -> ReportWorld:
        made = report_world(recipes=["bf16", "fp8"], adapters=[ADAPTER], **changes)
        made.publish_everything()
        return made

    return make


def row_of(summary: Summary) -> Row:
    (row,) = (row for row in summary.rows if row.key == "theirs")
    return row


def test_an_imported_adapter_has_a_row_after_the_recipes_and_no_training_figures(world: MakeWorld) -> None:
    scored = world()
    publish_import(scored)
    scored.publish_eval("theirs")
    summary = build_report(scored.store, scored.sweep, {}).summary
    row = row_of(summary)
    assert [each.key for each in summary.rows] == ["base", "bf16", "fp8", "theirs"]
    assert (row.state, row.training, row.recipe, row.seed, row.seeds, row.is_base) == (
        "succeeded", None, None, None, (), False,
    )  # fmt: skip
    assert row.foreign is not None
    assert (row.foreign.source, row.foreign.trained_under) == ("lab/adapter@0123456789", "qbnb")
    right, reference, base = (sum(scored.outcomes[run]) / 500 for run in ("theirs", "bf16-s0", "base"))
    assert row.versus_reference is not None
    assert row.versus_base is not None
    assert row.versus_reference.delta == pytest.approx(right - reference)
    assert row.versus_base.delta == pytest.approx(right - base)
    assert row.versus_reference.p_questions is not None
    assert row.versus_reference.p_value is None


def test_that_its_training_is_not_ours_is_said_wherever_the_row_is_shown(world: MakeWorld) -> None:
    scored = world()
    publish_import(scored)
    scored.publish_eval("theirs")
    summary = build_report(scored.store, scored.sweep, {}).summary
    charts = draw_charts(summary, read_records(scored.store, scored.sweep), scored.sweep)
    explained = f"{PILCROW} theirs: trained elsewhere under qbnb, as the sweep states; from lab/adapter@"
    assert any(note.startswith(explained) for note in summary.footnotes)
    assert any("theirs was not trained by this sweep" in note for note in summary.notes)
    assert "theirs: Its base model has another name." in summary.warnings
    assert f"theirs {PILCROW}" in to_markdown(summary, {})
    assert f"theirs {PILCROW}" in render_page(summary, charts, scored.sweep)
    (line,) = (line for line in csv.DictReader(io.StringIO(to_csv(summary))) if line["key"] == "theirs")
    assert (line["source"], line["trained_under"], line["tokens_per_second"]) == ("lab/adapter@0123456789", "qbnb", "")
    assert charts.accuracy is not None
    assert "theirs" in charts.accuracy.alt


def test_with_several_seeds_it_is_compared_with_each_of_the_reference_and_once_with_the_base(
    world: MakeWorld,
) -> None:
    scored = world(seeds=[0, 1, 2])
    publish_import(scored)
    scored.publish_eval("theirs")
    summary = build_report(scored.store, scored.sweep, {}).summary
    row = row_of(summary)
    assert row.versus_reference is not None
    assert row.versus_base is not None
    mean = sum(sum(scored.outcomes[f"bf16-s{seed}"]) for seed in range(3)) / 1500
    assert row.versus_reference.seeds == (0, 1, 2)
    assert row.versus_reference.of_all_seeds
    assert row.versus_reference.delta == pytest.approx(sum(scored.outcomes["theirs"]) / 500 - mean)
    assert (row.versus_base.seeds, row.versus_base.of_all_seeds) == ((0,), True)
    assert any("One adapter: the interval covers questions, not seeds." in note for note in summary.footnotes)
    assert "theirs" not in {each.key for each in summary.runs}
    assert f"theirs {PILCROW}" in to_markdown(summary, {})


@pytest.mark.parametrize(("imported", "reason"), [(False, "not imported yet"), (True, "not evaluated yet")])
def test_an_adapter_without_a_score_says_what_it_waits_for(imported: bool, reason: str, world: MakeWorld) -> None:
    scored = world()
    if imported:
        publish_import(scored)
    row = row_of(build_report(scored.store, scored.sweep, {}).summary)
    assert (row.state, row.reason) == ("pending", reason)


def test_a_refused_adapter_is_a_failed_row_with_its_reason(world: MakeWorld) -> None:
    scored = world()
    failure = "ConfigError: adapters.theirs.hub: use_dora in adapter_config.json: uses DoRA"
    row = row_of(build_report(scored.store, scored.sweep, failures_of({"theirs": failure})).summary)
    assert (row.state, row.reason) == ("failed", failure)
    assert row.foreign is not None
    assert row.foreign.source == "lab/adapter"


def test_one_adapter_is_an_observation_however_many_seeds_it_is_compared_with(report_world: MakeWorld) -> None:
    ways = {"under": ["all"]}
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1, 2], adapters=[ADAPTER], serving=ways)
    for under in (None, "fp8"):
        for seed in range(3):
            if under is None:
                world.publish_train("bf16", seed)
            world.publish_eval(f"bf16-s{seed}", [index < 411 + seed for index in range(500)], under=under)
        world.publish_eval("theirs", [index < 360 for index in range(500)], under=under)
    publish_import(world)
    summary = build_report(world.store, world.sweep, {}).summary
    found = row_of(summary).versus_reference
    assert found is not None
    assert (found.seeds, found.p_value, found.p_adjusted, found.p_questions) == ((0, 1, 2), None, None, None)
    text = to_markdown(summary, {})
    assert not re.search(r"significantly|\d\\?\*|p [<=] 0", text)
    assert "This one adapter, theirs: \N{MINUS SIGN}10.4 points (95 % interval " in summary.headline
    assert "against BF16 with seeds 0, 1 and 2" in summary.headline
