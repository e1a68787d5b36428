"""Results whose answers were not kept: the other seeds are scored, the row is marked, and the true reason is given."""

import pytest
from worlds.report import MakeWorld, ReportWorld, right, summarized

from surogate_bench_orchestrator.report import Summary, build_report
from surogate_bench_orchestrator.report.model.summary import Row

FP4 = "\N{DOUBLE VERTICAL LINE} FP4: the answers of seed 1 were not kept, so the score is that of seeds 0 and 2."


def row(summary: Summary, key: str) -> Row:
    return next(found for found in summary.all_rows() if found.key == key)


def sweep_without(report_world: MakeWorld, *not_kept: str, seeds: int = 3, **changes: object) -> ReportWorld:
    """A sweep of BF16 and FP4 without the answers of some evaluations, as ``fp4-s1``."""
    world = report_world(recipes=["bf16", "fp4"], seeds=list(range(seeds)), **changes)
    world.publish_eval("base", right(4), samples="base" not in not_kept)
    for seed in range(seeds):
        for recipe, count in (("bf16", 400), ("fp4", 300)):
            world.publish_train(recipe, seed)
            run = f"{recipe}-s{seed}"
            world.publish_eval(run, right(count + 10 * seed), samples=run not in not_kept)
    return world


def test_the_other_seeds_are_scored_and_compared_and_the_row_says_why(report_world: MakeWorld) -> None:
    world = sweep_without(report_world, "fp4-s1")
    summary = summarized(world)
    found = row(summary, "fp4")
    assert (found.state, found.seeds, found.seeds_scored, found.kept.left_out) == ("succeeded", (0, 2), 2, (1,))
    assert found.score is not None
    assert found.score.accuracy == pytest.approx((300 + 320) / 1000)
    assert found.versus_reference is not None
    assert (found.versus_reference.seeds, found.versus_reference.of_all_seeds) == ((0, 2), False)
    assert found.versus_base is not None
    assert (found.versus_base.seeds, found.versus_base.of_all_seeds) == ((0, 2), True)
    assert FP4 in summary.footnotes
    assert FP4 in summary.detail_footnotes
    assert "FP4 \N{DOUBLE VERTICAL LINE} (2 of 3 seeds)" in world.report_file("summary.md").decode()
    lines = world.csv_rows()
    assert (lines["fp4"]["seeds"], lines["fp4"]["seeds_left_out"]) == ("0 2", "1")
    for name in ("summary.md", "report.html", "summary.json"):
        assert "not asked the same questions" not in world.report_file(name).decode()


def test_the_run_itself_keeps_its_recorded_accuracy_and_is_not_compared(report_world: MakeWorld) -> None:
    summary = build_report((world := sweep_without(report_world, "fp4-s1")).store, world.sweep, {}).summary
    found = row(summary, "fp4-s1")
    assert found.score is not None
    assert found.score.accuracy == pytest.approx(310 / 500)
    assert (found.versus_reference, found.versus_base) == (None, None)
    assert summary.run_footnotes == (
        "\N{DOUBLE VERTICAL LINE} FP4, seed 1: its answers were not kept, so it is not compared.",
    )


def test_a_row_without_any_answers_of_several_seeds_fails_with_the_true_reason(report_world: MakeWorld) -> None:
    world = sweep_without(report_world, "fp4-s0", "fp4-s1", seeds=2)
    found = row(build_report(world.store, world.sweep, {}).summary, "fp4")
    assert (found.state, found.score) == ("failed", None)
    assert found.reason == "the answers of seeds 0 and 1 were not kept, so they cannot be put together"


def test_without_the_answers_of_the_base_nothing_is_compared_with_it_and_its_row_says_why(
    report_world: MakeWorld,
) -> None:
    world = sweep_without(report_world, "base", seeds=2)
    summary = build_report(world.store, world.sweep, {}).summary
    assert row(summary, "fp4").versus_base is None
    note = "\N{DOUBLE VERTICAL LINE} Base model: its answers were not kept, so it is not compared."
    assert note in summary.footnotes


def test_seeds_that_were_really_asked_other_questions_still_fail_the_row(report_world: MakeWorld) -> None:
    world = sweep_without(report_world, seeds=1)
    other = report_world(name="other", recipes=["bf16", "fp4"], seeds=[0, 1])
    other.folder = world.folder / "other"
    for seed, topic in enumerate(("apples", "pears")):
        other.publish_eval(f"fp4-s{seed}", right(300), topic=topic)
    found = row(build_report(other.store, other.sweep, {}).summary, "fp4")
    assert found.state == "failed"
    assert "not asked the same questions" in found.reason


def test_served_as_trained_and_merged_the_other_seeds_are_scored_too(report_world: MakeWorld) -> None:
    world = sweep_without(report_world, serving={"under": ["own"], "merged": True})
    for seed in range(3):
        world.publish_eval(f"fp4-s{seed}", right(350), under="fp4", samples=seed != 1)
        world.publish_eval(f"fp4-s{seed}", right(340), merged=True, samples=seed != 2)
    summary = summarized(world)
    assert summary.served is not None
    assert summary.merged is not None
    own = next(found for found in summary.served.rows if found.key == "fp4").own
    assert own is not None
    assert (own.state, own.seeds, own.kept.left_out) == ("succeeded", (0, 2), (1,))
    mark = "\N{DOUBLE VERTICAL LINE}"
    kept = "were not kept, so the score is that of seeds"
    assert f"{mark} FP4 served under FP4: the answers of seed 1 {kept} 0 and 2." in summary.served.footnotes
    merged = f"{mark} FP4 merged, served as published: the answers of seed 2 {kept} 0 and 1."
    assert merged in summary.merged.footnotes
    text = world.report_file("summary.md").decode()
    assert f"| 0.7000{mark} (" in text
    assert f"| 0.6800{mark} (" in text
