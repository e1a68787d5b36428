"""The matrix *trained under* times *served under*: figures recomputed by other means, and cells that are missing."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student
from worlds.report import MakeWorld, ReportWorld, failures_of

from surogate_bench.layout import manifest_key
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.report import Summary, build_report
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import LossSplit, Served, ServedCell, ServedRow

OWN = {"under": ["own"]}
ALL = {"under": ["all"]}


def served_of(world: ReportWorld, failures: dict[str, Failure] | None = None) -> Served:
    served = build_report(world.store, world.sweep, failures or {}).summary.served
    assert served is not None
    return served


def row(served: Served, key: str) -> ServedRow:
    return next(found for found in served.all_rows() if found.key == key)


def cell(served: Served, key: str, under: str | None) -> ServedCell:
    found = row(served, key).on(under)
    assert found is not None
    return found


def split(served: Served, recipe: str) -> LossSplit:
    return next(found for found in served.splits if found.recipe == recipe)


def accuracy(answers: Sequence[bool]) -> float:
    return sum(answers) / len(answers)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    gained, lost = (sum(x and not y for x, y in pairs) for pairs in (zip(a, b, strict=True), zip(b, a, strict=True)))
    return float(binomtest(gained, gained + lost, 0.5).pvalue)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    adjusted, largest = {}, 0.0
    for rank, (key, value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * value))
        adjusted[key] = largest
    return adjusted


def crossed(differences: np.ndarray) -> tuple[float, float, float]:
    """Standard error and 95 % interval of the mean of a (seeds, questions) table, by Cochran and Cox."""
    seeds, n = differences.shape
    mean = differences.mean()
    by_seed, by_question = differences.mean(axis=1), differences.mean(axis=0)
    residual = differences - by_seed[:, None] - by_question[None, :] + mean
    square_question = seeds * by_question.var(ddof=1)
    square_both = (residual**2).sum() / ((seeds - 1) * (n - 1))
    least = 2 / (n + 2) ** 2
    of_seeds = max(by_seed.var(ddof=1), least) / seeds
    of_questions = max(max(0.0, square_question - square_both) / (seeds * n), least)
    stderr = math.sqrt(of_seeds + of_questions)
    weights = np.array([of_seeds, of_questions]) / (of_seeds + of_questions)
    critical = float(weights @ [student.ppf(0.975, seeds - 1), student.ppf(0.975, n - 1)])
    return stderr, mean - critical * stderr, mean + critical * stderr


def test_a_sweep_that_serves_the_base_as_published_alone_has_no_matrix_in_its_summary(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"])
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    assert summary.served is None
    assert "served" not in json.loads(summary.model_dump_json())
    assert "served as published" not in summary.headline
    assert "All adapters were served on bf16 weights" in summary.headline


def test_a_summary_of_a_version_without_ways_of_serving_is_read(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving=OWN)
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    earlier = summary.model_dump(mode="json") | {"served": None}
    del earlier["served"]
    assert Summary.model_validate(earlier).served is None
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


def test_every_requested_cell_has_the_accuracy_of_its_answers(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving=ALL)
    world.publish_everything()
    served = served_of(world)
    assert [way.served_under for way in served.ways] == [None, "fp8", "fp4"]
    assert [found.key for found in served.rows] == ["base", "bf16", "fp8", "fp4"]
    for found in served.rows:
        assert [each.served_under for each in found.cells] == [None, "fp8", "fp4"]
        for each in found.cells:
            run = "base" if found.recipe is None else f"{found.recipe}-s0"
            answers = world.outcomes[run if each.served_under is None else f"{run} under {each.served_under}"]
            wilson = binomtest(sum(answers), 500).proportion_ci(method="wilson")
            assert each.score is not None
            assert each.score.accuracy == pytest.approx(accuracy(answers))
            assert (each.score.low, each.score.high) == pytest.approx((wilson.low, wilson.high))


def test_the_main_table_keeps_the_accuracies_as_published(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving=OWN)
    world.publish_everything()
    rows = {found.key: found for found in build_report(world.store, world.sweep, {}).summary.rows}
    assert rows["fp4"].score is not None
    assert rows["fp4"].score.accuracy == pytest.approx(accuracy(world.outcomes["fp4-s0"]))


def test_differences_along_rows_and_columns_are_paired_and_adjusted_over_the_recipes(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving=ALL)
    world.publish_everything()
    served, answers = served_of(world), world.outcomes
    along_row = {key: mcnemar(answers[f"{key}-s0 under fp4"], answers[f"{key}-s0"]) for key in ("bf16", "fp8")}
    along_column = {
        key: mcnemar(answers[f"{key}-s0 under fp4"], answers["bf16-s0 under fp4"]) for key in ("fp8", "fp4")
    }
    own = holm({key: mcnemar(answers[f"{key}-s0 under {key}"], answers[f"{key}-s0"]) for key in ("fp8", "fp4")})
    for key in ("bf16", "fp8"):
        found = cell(served, key, "fp4").versus_published
        assert found is not None
        assert found.delta == pytest.approx(accuracy(answers[f"{key}-s0 under fp4"]) - accuracy(answers[f"{key}-s0"]))
        assert (found.p_questions, found.p_adjusted) == (pytest.approx(along_row[key]), None)
        assert found.p_questions_adjusted == pytest.approx(holm(along_row)[key])
    for key in ("fp8", "fp4"):
        to_reference, itself = cell(served, key, "fp4").versus_reference, cell(served, key, key).versus_published
        assert to_reference is not None
        assert itself is not None
        assert to_reference.p_questions_adjusted == pytest.approx(holm(along_column)[key])
        assert itself.p_questions_adjusted == pytest.approx(own[key])
    assert cell(served, "bf16", "fp4").versus_reference is None
    assert cell(served, "fp4", None).versus_published is None


def test_the_untouched_model_shows_what_quantizing_alone_costs(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving=OWN)
    world.publish_eval("base", [index < 200 for index in range(500)])
    world.publish_eval("base", [10 <= index < 190 for index in range(500)], under="fp4")
    served = served_of(world)
    found = cell(served, "base", "fp4").versus_published
    assert found is not None
    assert (found.delta, found.seeds, found.only_this, found.only_reference) == (pytest.approx(-0.04), (), 0, 20)
    assert "40.0 % as published, 36.0 % under FP4 (\N{MINUS SIGN}4.0 points" in served.quantizing
    assert "so few correct answers" not in served.quantizing


def test_a_loss_is_the_sum_of_training_under_a_recipe_and_serving_it_elsewhere(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving=OWN)
    world.publish_everything()
    served, answers = served_of(world), world.outcomes
    parts = {
        recipe: {
            "total": (answers[f"{recipe}-s0"], answers["bf16-s0"]),
            "training": (answers[f"{recipe}-s0 under {recipe}"], answers["bf16-s0"]),
            "serving": (answers[f"{recipe}-s0"], answers[f"{recipe}-s0 under {recipe}"]),
        }
        for recipe in ("fp8", "fp4")
    }
    assert [found.recipe for found in served.splits] == ["fp8", "fp4"]
    for part in ("total", "training", "serving"):
        adjusted = holm({recipe: mcnemar(*pairs[part]) for recipe, pairs in parts.items()})
        for recipe, pairs in parts.items():
            found: Comparison = getattr(split(served, recipe), part)
            assert found.delta == pytest.approx(accuracy(pairs[part][0]) - accuracy(pairs[part][1]))
            assert found.p_questions_adjusted == pytest.approx(adjusted[recipe])
            assert found.of_all_seeds
    for each in served.splits:
        assert each.total is not None
        assert each.training is not None
        assert each.total.delta == pytest.approx(each.training.delta + each.serving.delta)


def test_one_seed_gives_a_split_on_these_questions_without_p_values(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving=OWN)
    world.publish_eval("bf16-s0", [index < 411 for index in range(500)])
    world.publish_eval("fp4-s0", [index < 375 for index in range(500)])
    world.publish_eval("fp4-s0", [index < 400 for index in range(500)], under="fp4")
    sentence = split(served_of(world), "fp4").sentence
    assert sentence.startswith(
        "FP4, on these questions with seed 0: \N{MINUS SIGN}7.2 points (95 % interval \N{MINUS SIGN}"
    )
    assert "\N{MINUS SIGN}2.2 (" in sentence
    assert "\N{MINUS SIGN}5.0 (" in sentence
    assert "p " not in sentence
    assert "signific" not in sentence


def test_several_seeds_give_means_intervals_and_p_values_over_seeds_and_questions(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], seeds=[0, 1, 2], serving=OWN)
    world.publish_everything()
    served = served_of(world)
    own = np.array([world.outcomes[f"fp4-s{seed} under fp4"] for seed in range(3)], float)
    published = np.array([world.outcomes[f"fp4-s{seed}"] for seed in range(3)], float)
    found, score = cell(served, "fp4", "fp4").versus_published, cell(served, "fp4", "fp4").score
    assert found is not None
    assert score is not None
    assert score.accuracy == pytest.approx(own.mean())
    assert score.seed_stddev == pytest.approx(own.mean(axis=1).std(ddof=1))
    assert found.delta == pytest.approx((own - published).mean())
    assert (found.stderr, found.low, found.high) == pytest.approx(crossed(own - published))
    assert found.p_adjusted == found.p_value is not None
    assert split(served, "fp4").sentence.startswith("FP4, over seeds 0, 1 and 2: ")
    assert ", p " in split(served, "fp4").sentence
    assert [each.key for each in served.runs] == [
        f"{recipe}-s{seed}" for recipe in ("bf16", "fp4") for seed in range(3)
    ]
    assert cell(served, "fp4-s1", "fp4").versus_published is not None


def test_a_missing_seed_is_named_and_differences_are_over_common_seeds(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], seeds=[0, 1], serving=OWN)
    for seed in (0, 1):
        world.publish_run("bf16", seed)
        world.publish_run("fp4", seed)
    world.publish_eval("fp4-s1", under="fp4")
    served = served_of(world)
    found, parts = cell(served, "fp4", "fp4"), split(served, "fp4")
    assert (found.seeds, found.state, found.reason) == ((1,), "pending", "seed 0: not evaluated yet")
    assert found.versus_published is not None
    assert not found.versus_published.of_all_seeds
    assert parts.seeds == (1,)
    assert parts.total is not None
    assert parts.total.delta == pytest.approx(accuracy(world.outcomes["fp4-s1"]) - accuracy(world.outcomes["bf16-s1"]))
    assert not parts.total.of_all_seeds
    assert any(note.startswith("†") and "seed 1" in note for note in served.footnotes)
    assert any("FP4 served under FP4 pending: seed 0: not evaluated yet" in note for note in served.footnotes)


def test_without_a_reference_the_split_is_of_serving_alone(report_world: MakeWorld) -> None:
    world = report_world(recipes=["fp4"], serving=OWN)
    world.publish_run("fp4")
    world.publish_eval("fp4-s0", under="fp4")
    parts = split(served_of(world), "fp4")
    assert (parts.total, parts.training) == (None, None)
    assert "no unquantized run" in parts.sentence


def test_a_seed_that_the_reference_lacks_is_named_and_separates_no_recipe(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], seeds=[0, 1], serving=OWN)
    world.publish_run("bf16", 0)
    world.publish_run("fp4", 1)
    world.publish_eval("fp4-s1", under="fp4")
    parts = split(served_of(world), "fp4")
    assert (parts.total, parts.training) == (None, None)
    assert parts.sentence.endswith("; BF16 has no result with seed 1 to compare it with.")
    notes = " ".join(build_report(world.store, world.sweep, {}).summary.notes)
    assert "are not separated: no unquantized run with the same seed has been scored." in notes
    world.publish_run("fp8", 0)
    world.publish_eval("fp8-s0", under="fp8")
    notes = " ".join(build_report(world.store, world.sweep, {}).summary.notes)
    assert "separates recipe and mismatch for FP8, not for FP4." in notes


def test_a_recipe_that_is_scored_under_another_ones_weights_is_compared_but_not_split(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving={"under": ["fp8"]})
    world.publish_everything()
    served = served_of(world)
    assert row(served, "fp4").own is None
    assert cell(served, "fp4", "fp8").versus_published is not None
    assert cell(served, "fp4", "fp8").versus_reference is not None
    assert [found.recipe for found in served.splits] == ["fp8"]
    assert served.is_crossed


def test_a_run_that_failed_under_one_recipe_keeps_its_other_accuracies(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving=ALL)
    world.publish_run("bf16")
    world.publish_run("fp4")
    failure = Failure("UnsupportedRecipeError", "served under fp4: no engine", "served under fp4")
    served = served_of(world, {"fp4-s0": failure})
    assert cell(served, "fp4", None).score is not None
    assert cell(served, "fp4", "fp4").state == "failed"
    assert cell(served, "fp4", "fp4").reason == "UnsupportedRecipeError: served under fp4: no engine"
    assert cell(served, "fp4", "fp8").reason.startswith("not scored; the run ended with UnsupportedRecipeError")
    assert cell(served, "bf16", "fp8").state == "pending"


def test_a_failure_of_the_whole_run_is_the_reason_of_every_cell_whatever_its_message_says(
    report_world: MakeWorld,
) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving=ALL)
    world.publish_run("bf16")
    failures = failures_of({"fp4-s0": "ConfigError: its base was served under fp8"})
    served = served_of(world, failures)
    assert {each.reason for each in row(served, "fp4").cells} == {"ConfigError: its base was served under fp8"}


def test_a_failure_without_a_message_is_the_reason_of_the_cell_that_failed(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving=ALL)
    world.publish_run("fp4")
    served = served_of(world, {"fp4-s0": Failure("Killed", "served under fp4", "served under fp4")})
    assert cell(served, "fp4", "fp4").reason == "Killed: served under fp4"
    assert cell(served, "fp4", "fp8").reason == "not scored; the run ended with Killed: served under fp4"


def test_damaged_answers_under_one_recipe_leave_the_accuracy_as_published(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving=OWN)
    world.publish_everything()
    world.store.put(f"{world.layout.eval('fp4-s0', 'fp4')}/samples.jsonl", b"")
    served = served_of(world)
    assert cell(served, "fp4", None).score is not None
    assert (cell(served, "fp4", "fp4").state, cell(served, "fp4", "fp4").score) == ("failed", None)
    assert "damaged" in cell(served, "fp4", "fp4").reason


def test_an_evaluation_that_was_served_otherwise_than_its_place_says_is_not_believed(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving=ALL)
    world.publish_everything()
    world.alter_manifest(world.layout.eval("fp4-s0", "fp4"), result={"served_under": "fp8"})
    found = cell(served_of(world), "fp4", "fp4")
    assert found.score is None
    assert "was served under fp8, not under fp4" in found.reason


def test_answers_to_other_questions_are_not_compared_and_a_note_says_so(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving=OWN)
    world.publish_run("bf16")
    world.publish_run("fp4")
    world.publish_eval("fp4-s0", under="fp4", topic="pears")
    summary = build_report(world.store, world.sweep, {}).summary
    assert summary.served is not None
    assert summary.served.splits == ()
    assert cell(summary.served, "fp4", "fp4").versus_published is None
    assert any(note.startswith("FP4 served under fp4: not compared") for note in summary.notes)


def test_the_headline_names_the_way_of_serving_and_the_accuracies_as_trained(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving=OWN)
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    assert "500 questions of word-problems-ro, served as published in bf16." in summary.headline
    as_trained = 100 * accuracy(world.outcomes["fp4-s0 under fp4"])
    assert summary.headline.endswith(f"served as trained instead, FP4 {as_trained:.1f} % (quantized products).")
    assert any("separates recipe and mismatch for FP4" in note for note in summary.notes)
    assert not any("is not measured" in note for note in summary.notes)


def test_a_store_written_before_ways_of_serving_is_reported_with_empty_cells(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], serving=OWN)
    world.publish_eval("base")
    world.publish_run("bf16")
    world.publish_run("fp4")
    manifest = json.loads(world.store.get(manifest_key(world.layout.eval("fp4-s0"))) or b"")
    assert "served_under" not in manifest["result"]
    summary = build_report(world.store, world.sweep, {}).summary
    assert summary.served is not None
    assert cell(summary.served, "fp4", "fp4").state == "pending"
    assert (summary.served.splits, summary.served.quantizing) == ((), "")
    assert summary.headline.endswith("includes that mismatch.")


def test_a_foreign_adapter_is_compared_but_its_loss_is_not_split(report_world: MakeWorld) -> None:
    adapter = {"name": "theirs", "hub": "lab/adapter", "trained_under": "fp4"}
    world = report_world(recipes=["bf16", "fp4"], seeds=[0, 1], serving=ALL, adapters=[adapter])
    world.publish_everything()
    for under in (None, "fp4"):
        world.publish_eval("theirs", under=under)
    served, answers = served_of(world), world.outcomes
    found = cell(served, "theirs", "fp4")
    assert row(served, "theirs").own == found
    assert row(served, "base").is_base
    assert not row(served, "theirs").is_base
    assert found.versus_published is not None
    assert found.versus_published.delta == pytest.approx(
        accuracy(answers["theirs under fp4"]) - accuracy(answers["theirs"])
    )
    assert found.versus_reference is not None
    assert found.versus_reference.seeds == (0, 1)
    assert found.versus_reference.of_all_seeds
    theirs = [accuracy(answers[f"bf16-s{seed} under fp4"]) for seed in (0, 1)]
    assert found.versus_reference.delta == pytest.approx(accuracy(answers["theirs under fp4"]) - sum(theirs) / 2)
    assert [each.recipe for each in served.splits] == ["fp4"]
