"""The summary: figures recomputed by other means, and every state a run can be in."""

import csv
import hashlib
import io
import json
import math
from datetime import UTC, datetime

import pytest
from rich.console import Console
from scipy.stats import binomtest
from worlds.report import MakeWorld, failures_of

from surogate_bench.layout import manifest_key
from surogate_bench_orchestrator.report import Summary, build_report, render_terminal_table
from surogate_bench_orchestrator.report.model.summary import Row
from surogate_bench_orchestrator.report.tables.csv.summary import to_csv


def row(summary: Summary, key: str) -> Row:
    return next(found for found in summary.all_rows() if found.key == key)


def test_a_finished_sweep_has_the_base_model_and_its_recipes_in_the_order_of_the_sweep(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    expected = ["base", "bf16", "fp8", "fp4", "qbnb", "qfp8-fp8-hybrid", "qfp8-bf16", "qfp4"]
    assert [found.key for found in summary.rows] == expected
    assert {found.state for found in summary.rows} == {"succeeded"}
    assert summary.runs == ()


def test_accuracy_stderr_and_interval_are_those_of_the_answers(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_everything()
    score = row(build_report(world.store, world.sweep, {}).summary, "fp4").score
    answers = world.outcomes["fp4-s0"]
    p, n = sum(answers) / len(answers), len(answers)
    wilson = binomtest(sum(answers), n).proportion_ci(method="wilson")
    assert score is not None
    assert score.accuracy == pytest.approx(p)
    assert score.stderr == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)))
    assert (score.low, score.high) == pytest.approx((wilson.low, wilson.high))


def test_differences_are_paired_by_question_and_adjusted_over_all_recipes(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    reference = world.outcomes["bf16-s0"]
    p_values = {}
    for recipe in ("fp8", "fp4", "qbnb", "qfp8-fp8-hybrid", "qfp8-bf16", "qfp4"):
        pairs = list(zip(world.outcomes[f"{recipe}-s0"], reference, strict=True))
        gained, lost = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
        p_values[recipe] = binomtest(gained, gained + lost, 0.5).pvalue
        found = row(summary, recipe).versus_reference
        assert found is not None
        assert (found.only_this, found.only_reference) == (gained, lost)
        assert found.delta == pytest.approx((gained - lost) / len(pairs))
        assert found.p_questions == pytest.approx(p_values[recipe])
    smallest = min(p_values, key=lambda recipe: p_values[recipe])
    comparison = row(summary, smallest).versus_reference
    assert comparison is not None
    assert comparison.p_questions_adjusted == pytest.approx(len(p_values) * p_values[smallest])
    assert row(summary, "bf16").versus_reference is None


def test_every_recipe_is_compared_with_the_base_model(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    base = sum(world.outcomes["base"]) / 500
    for found in summary.rows[1:]:
        assert found.score is not None
        assert found.versus_base is not None
        assert found.versus_base.delta == pytest.approx(found.score.accuracy - base)


def test_runs_that_failed_or_were_skipped_or_still_wait_are_shown_with_their_reason(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_eval("base")
    world.publish_run("bf16")
    world.publish_train("fp8")
    world.publish_train("fp4")
    failures = {"fp4-s0": "the model server did not start", "bf16-s0": "an attempt failed before one succeeded"}
    skipped = {"qbnb-s0": "no such tensor cores here"}
    summary = build_report(world.store, world.sweep, failures_of(failures), failures_of(skipped)).summary
    assert (row(summary, "fp4").state, row(summary, "fp4").reason) == ("failed", failures["fp4-s0"])
    assert (row(summary, "qbnb").state, row(summary, "qbnb").reason) == ("skipped", "no such tensor cores here")
    assert (row(summary, "fp8").state, row(summary, "fp8").reason) == ("pending", "not evaluated yet")
    assert (row(summary, "qfp4").state, row(summary, "qfp4").reason) == ("pending", "not trained yet")
    assert row(summary, "bf16").state == "succeeded"
    assert row(summary, "fp4").score is None
    assert row(summary, "fp4").training is not None


def test_nothing_finished_yet_is_a_summary_too(report_world: MakeWorld) -> None:
    world = report_world()
    summary = build_report(world.store, world.sweep, {}).summary
    assert summary.date is None
    assert {found.state for found in summary.rows} == {"pending"}
    assert summary.headline.startswith("No recipe has been scored yet.")


def test_answers_that_differ_from_their_digest_fail_their_run_alone(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_everything()
    key = f"{world.layout.eval('fp8-s0')}/samples.jsonl"
    world.store.put(key, world.store.get(key).replace(b'"strict_match":false', b'"strict_match":true'))
    summary = build_report(world.store, world.sweep, {}).summary
    assert row(summary, "fp8").state == "failed"
    assert "samples.jsonl" in row(summary, "fp8").reason
    assert "differs from its manifest" in row(summary, "fp8").reason
    assert row(summary, "fp4").state == "succeeded"


def test_a_recorded_accuracy_that_the_answers_do_not_give_is_not_believed(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_everything()
    key = manifest_key(world.layout.eval("fp8-s0"))
    manifest = json.loads(world.store.get(key))
    manifest["result"]["strict"]["accuracy"] = 0.99
    world.store.put(key, json.dumps(manifest).encode())
    assert "does not give the accuracy" in row(build_report(world.store, world.sweep, {}).summary, "fp8").reason


def test_a_malformed_line_is_named_by_its_number(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_train("bf16", metrics=False)
    data = b'{"step": 1, "loss": 2.0}\n{"step": 2, "los\n'
    world.store.put(f"{world.layout.train('bf16-s0')}/metrics.jsonl", data)
    key = manifest_key(world.layout.train("bf16-s0"))
    manifest = json.loads(world.store.get(key))
    manifest["files"]["metrics.jsonl"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    world.store.put(key, json.dumps(manifest).encode())
    assert "metrics.jsonl:2" in row(build_report(world.store, world.sweep, {}).summary, "bf16").reason


def test_runs_asked_different_questions_are_not_compared_and_the_notes_say_so(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"])
    world.publish_train("fp8")
    world.publish_eval("fp8-s0", topic="pears")
    world.publish_run("bf16")
    world.publish_run("fp4")
    summary = build_report(world.store, world.sweep, {}).summary
    assert row(summary, "fp8").score is not None
    assert row(summary, "fp8").versus_reference is None
    assert row(summary, "fp4").versus_reference is not None
    assert any(note.startswith("FP8 is not compared") and "same questions" in note for note in summary.notes)


def test_kept_answers_are_needed_for_comparisons_but_not_for_accuracies(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_run("bf16")
    world.publish_train("fp8")
    world.publish_eval("fp8-s0", samples=False)
    found = row(build_report(world.store, world.sweep, {}).summary, "fp8")
    assert found.score is not None
    assert found.score.accuracy == pytest.approx(sum(world.outcomes["fp8-s0"]) / 500)
    assert found.versus_reference is None


def test_several_seeds_give_a_row_over_them_and_a_row_each(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1, 2])
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    assert [found.key for found in summary.rows] == ["base", "bf16", "fp8"]
    assert [found.key for found in summary.runs] == [f"{name}-s{seed}" for name in ("bf16", "fp8") for seed in range(3)]
    pooled = row(summary, "fp8")
    singles = [row(summary, f"fp8-s{seed}") for seed in range(3)]
    assert pooled.score is not None
    assert pooled.versus_reference is not None
    accuracies = [found.score.accuracy for found in singles if found.score]
    deltas = [found.versus_reference.delta for found in singles if found.versus_reference]
    assert pooled.score.accuracy == pytest.approx(sum(accuracies) / 3)
    assert pooled.versus_reference.delta == pytest.approx(sum(deltas) / 3)
    for seed, delta in enumerate(deltas):
        ours, theirs = (sum(world.outcomes[f"{name}-s{seed}"]) / 500 for name in ("fp8", "bf16"))
        assert delta == pytest.approx(ours - theirs)


def test_a_missing_seed_is_paired_away_and_named(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1])
    world.publish_run("bf16", 0)
    world.publish_run("bf16", 1)
    world.publish_run("fp8", 1)
    summary = build_report(world.store, world.sweep, failures_of({"fp8-s0": "out of memory"})).summary
    found = row(summary, "fp8")
    assert (found.state, found.reason, found.seeds_scored) == ("failed", "seed 0: out of memory", 1)
    assert found.versus_reference is not None
    expected = (sum(world.outcomes["fp8-s1"]) - sum(world.outcomes["bf16-s1"])) / 500
    assert found.versus_reference.delta == pytest.approx(expected)


def test_without_an_unquantized_recipe_there_is_no_reference(report_world: MakeWorld) -> None:
    world = report_world(recipes=["fp8", "fp4"])
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    assert summary.reference is None
    assert all(found.versus_reference is None for found in summary.rows)
    assert "no unquantized run" in summary.headline


def test_provenance_comes_from_the_manifests(report_world: MakeWorld) -> None:
    world = report_world()
    before = datetime.now(UTC)
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    assert summary.date is not None
    assert before <= summary.date <= datetime.now(UTC)
    assert summary.spec_hash == world.sweep.spec_hash
    assert {split.split: split.sha256 for split in summary.splits} == {"train": "a" * 64, "test": "b" * 64}
    assert [machine.description for machine in summary.machines] == ["Example CPU 3000, 2 cores, 8.00 GiB memory"]
    assert summary.versions["torch"] == "2.13.0"


def test_speeds_are_never_without_how_many_trainers_shared_the_machine(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_everything()
    notes = " ".join(build_report(world.store, world.sweep, {}).summary.notes)
    assert "2 trainers side by side with 1 thread each" in notes


@pytest.mark.parametrize(
    ("side_by_side", "stated"),
    [(1, "one trainer at a time with 4 processes of 2 threads"), (2, "2 trainers side by side with 4 processes of 2 ")],
)
def test_speeds_are_never_without_how_many_processes_trained_together(
    report_world: MakeWorld, side_by_side: int, stated: str
) -> None:
    world = report_world(recipes=["bf16"], training={"gpus": 4})
    world.publish_prepare()
    world.publish_train("bf16", processes=4, threads=2, side_by_side=side_by_side)
    summary = build_report(world.store, world.sweep, {}).summary
    assert stated in " ".join(summary.notes)
    cells = {line["key"]: line["processes"] for line in csv.DictReader(io.StringIO(to_csv(summary)))}
    assert cells == {"base": "", "bf16": "4"}


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (140, ["Stderr", "interval", "tokens", "peak", "stored", "in", "train", "engine", "bitsandbytes"]),
        (120, ["Stderr", "interval", "tokens", "peak", "stored", "in", "engine"]),
        (80, ["Stderr", "interval", "tokens"]),
        (40, ["Δ BF16"]),
    ],
)
def test_the_terminal_table_drops_columns_and_never_cuts_a_figure(
    report_world: MakeWorld, width: int, shown: list[str]
) -> None:
    world = report_world()
    world.publish_eval("base")
    world.publish_run("bf16")
    world.publish_run("fp8")
    world.publish_train("qbnb", engine="bitsandbytes")
    world.publish_eval("qfp8-fp8-hybrid-s0", [False] * 500)
    summary = build_report(world.store, world.sweep, failures_of({"fp4-s0": "[bold]out of memory[/bold]"})).summary
    out = io.StringIO()
    Console(width=width, file=out).print(render_terminal_table(summary))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for found in summary.rows:
        assert set(found.title.split()) <= set(words)
        if found.score:
            assert f"{found.score.accuracy:.4f}" in words
        if found.versus_reference:
            assert f"{found.versus_reference.delta:+.4f}".replace("-", "\N{MINUS SIGN}") in words
    assert "…" not in text
    assert all(name in text for name in shown)
    assert "FP4 failed: [bold]out of memory[/bold]" in " ".join(words)


@pytest.mark.parametrize("width", [24, 30, 36, 48, 60, 90, 118, 119, 160])
def test_a_terminal_of_any_width_shows_accuracies_whole(report_world: MakeWorld, width: int) -> None:
    world = report_world(seeds=[0, 1])
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    out = io.StringIO()
    Console(width=width, file=out).print(render_terminal_table(summary))
    for found in summary.rows:
        assert found.score is not None
        assert f"{found.score.accuracy:.4f}" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= width
