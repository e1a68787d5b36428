"""Adapters merged into their base in a report: figures recomputed by other means, files, and what is missing."""

import io
import json

import pytest
from rich.console import Console
from scipy.stats import binomtest
from worlds.report import MakeWorld, ReportWorld

from surogate_bench.layout import manifest_key
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.report import build_report, render_terminal_table, write_report
from surogate_bench_orchestrator.report.model.merged import Merged, MergedCell, MergedRow
from surogate_bench_orchestrator.report.tables.csv.merged import MERGED_COLUMNS
from surogate_bench_orchestrator.report.tables.merged import merged_table

OWN = {"under": ["own"], "merged": True}
HEADING = "Merged before serving"
THEIRS = {"name": "theirs", "path": "/adapters/theirs"}


def merged_of(world: ReportWorld, failures: dict[str, Failure] | None = None) -> Merged:
    merged = build_report(world.store, world.sweep, failures or {}).summary.merged
    assert merged is not None
    return merged


def row(merged: Merged, key: str) -> MergedRow:
    return next(found for found in merged.all_rows() if found.key == key)


def cell(merged: Merged, key: str, under: str | None) -> MergedCell:
    return next(found for found in row(merged, key).cells if found.merged.served_under == under)


def test_a_sweep_without_merged_adapters_has_nothing_about_them(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], serving={"under": ["own"]})
    world.publish_everything()
    report = build_report(world.store, world.sweep, {})
    assert report.summary.merged is None
    assert "merged" not in json.loads(report.summary.model_dump_json())
    write_report(world.store, report)
    assert world.store.get(f"{world.layout.report}/merged.csv") is None
    assert HEADING not in world.report_file("report.html").decode() + world.report_file("summary.md").decode()


def test_each_merged_adapter_is_compared_with_itself_unmerged_and_served_the_same_way(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], serving=OWN)
    world.publish_everything()
    merged = merged_of(world)
    assert [(each.key, [one.merged.served_under for one in each.cells]) for each in merged.rows] == [
        ("bf16", [None]), ("fp8", [None, "fp8"]),
    ]  # fmt: skip
    p_values = {}
    for key, under in (("bf16", None), ("fp8", None), ("fp8", "fp8")):
        way = f" under {under}" if under else ""
        ours, theirs = world.outcomes[f"{key}-s0 merged{way}"], world.outcomes[f"{key}-s0{way}"]
        found = cell(merged, key, under)
        assert found.merged.score is not None
        assert found.unmerged.score is not None
        assert found.versus_unmerged is not None
        assert found.merged.score.accuracy == pytest.approx(sum(ours) / len(ours))
        assert found.unmerged.score.accuracy == pytest.approx(sum(theirs) / len(theirs))
        assert found.versus_unmerged.delta == pytest.approx((sum(ours) - sum(theirs)) / len(ours))
        assert found.versus_unmerged.low < found.versus_unmerged.delta < found.versus_unmerged.high
        gained = sum(a and not b for a, b in zip(ours, theirs, strict=True))
        lost = sum(b and not a for a, b in zip(ours, theirs, strict=True))
        p_values[key, under] = float(binomtest(gained, gained + lost).pvalue)
        assert found.versus_unmerged.p_questions == pytest.approx(p_values[key, under])
    adjusted = cell(merged, "fp8", "fp8").versus_unmerged
    assert adjusted is not None
    assert adjusted.p_questions_adjusted == pytest.approx(p_values["fp8", "fp8"])  # alone in its family


def test_over_several_seeds_recipes_are_tested_and_runs_are_listed(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1, 2], serving={"merged": True})
    world.publish_everything()
    merged = merged_of(world)
    found = cell(merged, "fp8", None)
    assert found.versus_unmerged is not None
    assert (found.versus_unmerged.seeds, found.versus_unmerged.p_questions) == ((0, 1, 2), None)
    assert found.versus_unmerged.p_adjusted is not None
    assert len(merged.runs) == 6
    assert "over seeds and questions" in merged.sentence


def test_the_sentence_of_one_seed_names_the_largest_changes_and_tests_nothing(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], serving={"merged": True})
    world.publish_prepare()
    right = [index % 2 == 0 for index in range(500)]
    for run, after in (("bf16-s0", right), ("fp8-s0", [*[False] * 100, *right[100:]])):
        world.publish_train(run.removesuffix("-s0"))
        world.publish_eval(run, right)
        world.publish_eval(run, after, merged=True)
    sentence = merged_of(world).sentence
    assert "changed the accuracy by \N{MINUS SIGN}10.0 points (95 % interval" in sentence
    assert "with FP8 served as published to +0.0 points" in sentence
    assert sentence.endswith("served the same way; with seed 0: another may give other differences.")
    assert "test" not in sentence


def test_a_row_of_one_seed_is_not_counted_among_the_tests_of_others(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1], serving={"merged": True})
    world.publish_prepare()
    for run in ("bf16-s0", "bf16-s1", "fp8-s0"):
        world.publish_train(run[:-3], int(run[-1]))
        world.publish_eval(run)
        world.publish_eval(run, merged=True)
    sentence = merged_of(world).sentence
    assert "1 paired test over seeds and questions (Holm-adjusted)" in sentence
    assert sentence.endswith("; FP8 served as published, with seed 0: another may give other differences.")
    assert [cells[-1] for cells in merged_table(merged_of(world)).rows][1] == "\N{EN DASH}"


def test_one_seed_without_any_change_is_not_tested_either(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"], serving={"merged": True})
    world.publish_prepare()
    world.publish_train("bf16")
    for merged in (False, True):
        world.publish_eval("bf16-s0", [True, False] * 50, merged=merged)
    assert "test" not in merged_of(world).sentence


def test_files_have_the_same_figures(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], serving=OWN)
    world.publish_everything()
    report = build_report(world.store, world.sweep, {})
    write_report(world.store, report)
    merged = merged_of(world)
    lines = world.csv_lines("merged.csv")
    page, text = world.report_file("report.html").decode(), world.report_file("summary.md").decode()
    assert tuple(lines[0]) == MERGED_COLUMNS
    cells = [(each, one) for each in merged.rows for one in each.cells]
    for (each, one), line in zip(cells, lines, strict=True):
        assert one.merged.score is not None
        assert one.versus_unmerged is not None
        assert (line["key"], line["served_under"]) == (each.key, one.merged.served_under or "bf16")
        assert float(line["accuracy"]) == one.merged.score.accuracy
        assert float(line["delta_unmerged"]) == one.versus_unmerged.delta
        assert f"{one.merged.score.accuracy:.4f}" in page
        assert f"{one.merged.score.accuracy:.4f}" in text
    assert f"<h2>{HEADING}</h2>" in page
    assert f"## {HEADING}" in text
    assert merged.sentence in page
    output = io.StringIO()
    Console(file=output, width=4000).print(render_terminal_table(report.summary))
    assert merged.sentence in output.getvalue()
    assert {len(each) for each in merged_table(merged).rows} == {len(merged_table(merged).header)}


def test_a_merged_evaluation_that_failed_is_named_and_costs_no_other(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], serving=OWN)
    world.publish_everything()
    world.store.delete([manifest_key(world.layout.eval("fp8-s0", "fp8", merged=True))])
    way = "served merged under fp8"
    failure = Failure("PermanentError", f"{way}: the model server failed: no disk", way)
    merged, why = merged_of(world, {"fp8-s0": failure}), str(failure)
    assert (cell(merged, "fp8", "fp8").merged.state, cell(merged, "fp8", "fp8").merged.reason) == ("failed", why)
    assert cell(merged, "fp8", "fp8").unmerged.state == cell(merged, "fp8", None).merged.state == "succeeded"
    assert f"FP8 merged, served under FP8 failed: {why}" in merged.footnotes
    world.store.delete([manifest_key(world.layout.eval("fp8-s0", "fp8"))])
    unmerged = cell(merged_of(world, {"fp8-s0": failure}), "fp8", "fp8").unmerged
    assert unmerged.reason == f"not scored; the run ended with {why}"


def test_an_unmerged_result_in_the_place_of_a_merged_one_is_not_believed(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"], serving={"merged": True})
    world.publish_everything()
    world.alter_manifest(world.layout.eval("bf16-s0", merged=True), result={"merged": False})
    found = cell(merged_of(world), "bf16", None).merged
    assert (found.state, found.score) == ("failed", None)
    assert "was served as published, not merged" in found.reason


def test_a_foreign_adapter_is_compared_too(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"], adapters=[THEIRS], serving={"merged": True})
    world.publish_everything()
    world.publish_eval("theirs")
    world.publish_eval("theirs", merged=True)
    found = cell(merged_of(world), "theirs", None)
    assert found.versus_unmerged is not None
    assert (found.versus_unmerged.seeds, found.versus_unmerged.of_all_seeds) == ((), True)
