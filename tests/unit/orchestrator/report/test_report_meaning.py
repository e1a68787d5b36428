"""What the report claims: no more than was measured, with one seed, with several, and with some missing."""

import io
import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from worlds.report import MakeWorld, ReportWorld, right, summarized

from surogate_bench.statistics import minimal_detectable_difference
from surogate_bench_orchestrator.report import Summary, build_report, render_terminal_table
from surogate_bench_orchestrator.report.model.summary import Row

CONCLUSIONS = re.compile(r"significant|scores? (lower|higher)|better|worse|outperform|show a difference", re.IGNORECASE)
OUTPUTS = ("summary.md", "report.html", "summary.json")


def row(summary: Summary, key: str) -> Row:
    return next(found for found in summary.all_rows() if found.key == key)


def on_the_terminal(summary: Summary, width: int = 120) -> str:
    out = io.StringIO()
    Console(width=width, file=out).print(render_terminal_table(summary))
    return out.getvalue()


def markdown_cells(world: ReportWorld, title: str) -> list[str]:
    lines = world.report_file("summary.md").decode().splitlines()
    line = next(line for line in lines if line.startswith(f"| {title} "))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


ONE_SEED = {"bf16-s0": right(411), "fp8-s0": right(409), "fp4-s0": right(375), "qfp4-s0": right(411, shift=5)}


def one_seed(report_world: MakeWorld) -> ReportWorld:
    world = report_world(recipes=["bf16", "fp8", "fp4", "qfp4"], training={"max_steps": 60})
    world.publish_answers(ONE_SEED)
    return world


def test_one_seed_gives_neither_stars_nor_claims_of_significance_in_any_output(report_world: MakeWorld) -> None:
    world = one_seed(report_world)
    summary = summarized(world, draw=True)
    texts = {name: world.report_file(name).decode() for name in OUTPUTS}
    texts |= {"terminal": on_the_terminal(summary), "chart": world.report_file("charts/accuracy.svg").decode()}
    for name, text in texts.items():
        visible = re.sub(r"<style>.*?</style>|data:image\S*", "", text, flags=re.DOTALL)
        assert not CONCLUSIONS.search(visible), (name, CONCLUSIONS.search(visible))
        assert not re.search(r"\d\\?\*", visible), name
        assert "p < 0" not in visible, name
        assert "p = 0" not in visible, name
        assert "p=0" not in visible, name
    assert 'class="lower"' not in texts["report.html"]
    assert 'class="higher"' not in texts["report.html"]


def test_the_headline_of_one_seed_states_what_was_observed_with_it(report_world: MakeWorld) -> None:
    world = one_seed(report_world)
    assert summarized(world).headline == (
        "Fine-tuning with BF16 (seed 0) raised accuracy from 0.8 % to 82.2 % on 500 questions of word-problems-ro. "
        "With seed 0, FP8 had 2 fewer correct answers than BF16 (411 of 500), FP4 had 36 fewer and QFP4 had as many; "
        "seeds differ, so another one may give other differences (docs/benchmarks.md has examples). "
        "All adapters were served on bf16 weights with bf16 products; the accuracies of those trained with quantized "
        "products (FP8 and FP4) or quantized weights and products (QFP4) include that mismatch."
    )


@pytest.mark.parametrize(
    ("counts", "clause"),
    [
        ([411], "FP8 had as many correct answers as BF16 (411 of 500);"),
        ([412], "FP8 had 1 more correct answer than BF16 (411 of 500);"),
        ([410], "FP8 had 1 fewer correct answer than BF16 (411 of 500);"),
        ([409, 411], "FP8 had 2 fewer correct answers than BF16 (411 of 500) and QFP4 had as many;"),
        ([411, 412], "FP8 had as many correct answers as BF16 (411 of 500) and QFP4 had 1 more;"),
        ([411, 411], "FP8 and QFP4 each had as many correct answers as BF16 (411 of 500);"),
        ([409, 409, 417], "FP8 and QFP4 each had 2 fewer correct answers than BF16 (411 of 500) and FP4 had 6 more;"),
        ([0], "FP8 had 411 fewer correct answers than BF16 (411 of 500);"),
    ],
)
def test_counts_are_grammatical(report_world: MakeWorld, counts: list[int], clause: str) -> None:
    others = ["fp8", "qfp4", "fp4"][: len(counts)]
    world = report_world(recipes=["bf16", *others], training={"max_steps": 60})
    runs = {f"{recipe}-s0": right(count) for recipe, count in zip(others, counts, strict=True)}
    world.publish_answers({"bf16-s0": right(411)} | runs)
    assert f"With seed 0, {clause}" in build_report(world.store, world.sweep, {}).summary.headline


@pytest.mark.parametrize(
    ("before", "words"),
    [(4, "raised accuracy from 0.8 % to"), (450, "lowered accuracy from 90.0 % to"), (411, "left accuracy at")],
)
def test_the_headline_says_in_which_direction_fine_tuning_went(
    report_world: MakeWorld, before: int, words: str
) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_eval("base", right(before))
    world.publish_train("bf16")
    world.publish_eval("bf16-s0", right(411))
    assert f"{words} 82.2 % on 500 questions" in build_report(world.store, world.sweep, {}).summary.headline


def test_an_unquantized_run_without_a_score_is_not_said_to_be_absent(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"])
    world.publish_answers({"fp8-s0": right(409), "fp4-s0": right(375)})
    headline = summarized(world).headline
    assert "BF16 has not been scored, so nothing is compared with it." in headline
    assert "no unquantized run" not in headline


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[a-z)]\.) (?=[A-Z])", text)


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_the_headline_has_three_sentences_and_notes_do_not_repeat_one_another(
    report_world: MakeWorld, seeds: list[int]
) -> None:
    world = report_world(seeds=seeds)
    world.publish_everything()
    summary = summarized(world)
    assert len(sentences(summary.headline)) == 3
    all_sentences = [sentence for note in (summary.headline, *summary.notes) for sentence in sentences(note)]
    assert len(set(all_sentences)) == len(all_sentences)
    words = [re.findall(r"[\w%.]+", note) for note in (summary.headline, *summary.notes)]
    parts = [{" ".join(each[start : start + 9]) for start in range(len(each) - 8)} for each in words]
    for one, other in itertools.combinations(parts, 2):
        assert not one & other


def test_p_values_of_one_seed_are_kept_under_names_that_say_what_they_concern(report_world: MakeWorld) -> None:
    world = one_seed(report_world)
    summary = summarized(world)
    found = row(summary, "fp4").versus_reference
    assert found is not None
    assert (found.p_value, found.p_adjusted) == (None, None)
    assert found.p_questions is not None
    assert found.p_questions < 1e-6
    cells = world.csv_rows()["fp4"]
    assert (cells["p_reference"], cells["p_reference_adjusted"], cells["p_base_adjusted"]) == ("", "", "")
    assert float(cells["p_questions"]) == found.p_questions
    assert float(cells["p_base_questions_adjusted"]) < 1e-6
    stored = json.loads(world.report_file("summary.json"))["rows"][3]["versus_reference"]
    assert (stored["p_value"], stored["p_questions"]) == (None, found.p_questions)


def test_intervals_say_what_they_cover(report_world: MakeWorld) -> None:
    single = one_seed(report_world)
    summarized(single, draw=True)
    assert "95 % interval over questions |" in single.report_file("summary.md").decode()
    assert "95 % interval over questions" in single.report_file("charts/accuracy.svg").decode()


def test_several_paired_seeds_are_tested_and_named(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4", "fp8"], seeds=[0, 1, 2])
    lower = {f"fp4-s{seed}": right(300 + seed) for seed in range(3)}
    alike = {f"fp8-s{seed}": right(410 + seed, shift=seed) for seed in range(3)}
    world.publish_answers({f"bf16-s{seed}": right(411 + seed) for seed in range(3)} | lower | alike)
    summary = summarized(world)
    assert "(mean of seeds 0, 1 and 2)" in summary.headline
    lower = "Compared with BF16 over seeds 0, 1 and 2, FP4 (−22.2 points) scores significantly lower;"  # noqa: RUF001
    assert lower in summary.headline
    assert "FP8 (−0.2 points) does not differ significantly." in summary.headline  # noqa: RUF001
    assert "nother seed" not in summary.headline
    assert re.match(r"−0\.2220(\\\*){1,3} \(p [=<] 0\.0\d+\)", markdown_cells(world, "FP4")[4])  # noqa: RUF001
    assert "95 % interval over seeds and questions |" in world.report_file("summary.md").decode()
    assert world.csv_rows()["fp4"]["p_reference_adjusted"]
    assert world.csv_rows()["fp4-s0"]["p_reference_adjusted"] == ""
    assert world.csv_rows()["fp4-s0"]["p_questions_adjusted"]


def missing_seeds(report_world: MakeWorld) -> ReportWorld:
    """Five seeds of FP4, and of BF16 only the first: accuracies .7164 and .8220, a difference of -.0720."""
    world = report_world(recipes=["bf16", "fp4"], seeds=[0, 1, 2, 3, 4])
    others = {f"fp4-s{seed}": right(354) for seed in range(1, 5)}
    world.publish_answers({"bf16-s0": right(411), "fp4-s0": right(375)} | others)
    return world


def test_a_difference_over_fewer_seeds_than_its_row_is_marked_and_explained_in_every_output(
    report_world: MakeWorld,
) -> None:
    world = missing_seeds(report_world)
    summary = summarized(world, draw=True)
    assert [f"{row(summary, key).score.accuracy:.4f}" for key in ("bf16", "fp4")] == ["0.8220", "0.7164"]
    explained = (
        "† FP4: the difference is over seed 0, which BF16 also has: 0.7500 against 0.8220. In the table, FP4 is over "
        "seeds 0, 1, 2, 3 and 4 and BF16 over seed 0."
    )
    assert explained in summary.footnotes
    assert markdown_cells(world, "FP4")[4] == "−0.0720†"  # noqa: RUF001
    assert "−0.0720†" in " ".join(on_the_terminal(summary).split())  # noqa: RUF001
    for text in (*(world.report_file(name).decode() for name in OUTPUTS), on_the_terminal(summary, 300)):
        assert explained in text
    chart = world.report_file("charts/accuracy.svg").decode()
    assert "−7.2†" in chart  # noqa: RUF001
    assert "† FP4: the difference is over seed 0" in chart
    cells = world.csv_rows()["fp4"]
    assert (cells["seeds"], cells["seeds_compared"]) == ("0 1 2 3 4", "0")
    assert (float(cells["accuracy_compared"]), float(cells["reference_accuracy_compared"])) == (0.75, 0.822)
    assert "† " not in (markdown_cells(world, "FP4, seed 0")[4])


def test_one_common_seed_of_several_is_no_evidence(report_world: MakeWorld) -> None:
    world = missing_seeds(report_world)
    headline = summarized(world).headline
    assert not CONCLUSIONS.search(headline)
    assert "With seed 0, FP4 had 36 fewer correct answers than BF16 (411 of 500);" in headline
    assert "between seeds: 1.9 points for FP4 over seeds 0, 1, 2, 3 and 4)" in headline


def test_every_difference_is_that_of_the_accuracies_beside_it_or_marked(report_world: MakeWorld) -> None:
    sets = [(), (0,), (1,), (0, 1), (0, 2), (0, 1, 2)]
    for number, (ours, theirs) in enumerate(itertools.product(sets, sets)):
        world = report_world(name=f"sweep-{number}", recipes=["bf16", "fp4"], seeds=[0, 1, 2])
        world.folder = world.folder / str(number)
        world.publish_answers(
            {f"bf16-s{seed}": right(400 + 7 * seed) for seed in theirs}
            | {f"fp4-s{seed}": right(380 + 5 * seed, shift=seed) for seed in ours},
        )
        summary = build_report(world.store, world.sweep, {}).summary
        fp4, bf16 = row(summary, "fp4"), row(summary, "bf16")
        found = fp4.versus_reference
        assert (found is not None) == bool(set(ours) & set(theirs))
        if found is None or fp4.score is None or bf16.score is None:
            continue
        assert found.seeds == tuple(sorted(set(ours) & set(theirs)))
        assert found.delta == pytest.approx(found.accuracy - found.other_accuracy)
        assert found.of_all_seeds == (ours == theirs)
        if found.of_all_seeds:
            assert found.delta == pytest.approx(fp4.score.accuracy - bf16.score.accuracy)
        assert ("†" in on_the_terminal(summary)) == (ours != theirs)
        assert (found.p_adjusted is not None) == (len(found.seeds) > 1)


def test_means_and_intervals_are_not_claimed_of_seeds_that_are_missing(report_world: MakeWorld) -> None:
    note = summarized(missing_seeds(report_world)).notes[0]
    assert note.startswith("Rows of recipes are means over seeds 0, 1, 2, 3 and 4, as far as they have been scored, ")
    world = report_world(name="begun", recipes=["bf16", "fp4"], seeds=[0, 1])
    world.folder = world.folder / "begun"
    world.publish_answers({"bf16-s0": right(411), "fp4-s0": right(375)})
    begun = summarized(world)
    assert "means over" not in " ".join(begun.notes)
    assert begun.notes[0].startswith("No recipe has been scored with more than one of seeds 0 and 1 yet: intervals ")
    assert "95 % interval over questions |" in world.report_file("summary.md").decode()


def test_a_row_of_one_seed_among_several_says_that_its_interval_covers_less(report_world: MakeWorld) -> None:
    world = missing_seeds(report_world)
    summary = summarized(world, draw=True)
    assert markdown_cells(world, "BF16 (1 of 5 seeds)")[3].endswith("‡")
    assert "‡ One seed: the interval covers questions, not seeds." in summary.footnotes
    assert "82.2‡" in world.report_file("charts/accuracy.svg").decode()


def test_the_detectable_difference_counts_the_pairs_that_there_are(report_world: MakeWorld) -> None:
    world = missing_seeds(report_world)
    note = next(note for note in summarized(world).notes if "a paired test detects" in note)
    smallest = minimal_detectable_difference(500, 36 / 500)
    assert note.startswith("With 500 questions and one common seed (500 pairs of answers), a paired test detects a ")
    assert f"{100 * smallest:.1f} points" in note


def test_the_detectable_difference_of_several_seeds_comes_from_the_least_sensitive_row(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], seeds=[0, 1, 2])
    fp4 = {f"fp4-s{seed}": right(330 + 40 * seed) for seed in range(2)}
    fp8 = {f"fp8-s{seed}": right(410 + seed) for seed in range(3)}
    world.publish_answers({f"bf16-s{seed}": right(411) for seed in range(3)} | fp4 | fp8)
    summary = summarized(world)
    (note,) = [note for note in summary.notes if "a paired test detects" in note]
    assert "one seed" not in note
    assert "with 500 questions and 2 seeds (1,000 pairs of answers)" in note
    assert "FP4, the least sensitive row" in note
    found = row(summary, "fp4").versus_reference
    assert found is not None
    printed = float(re.search(r"difference of ([0-9.]+) points", note).group(1))
    assert printed > 100 * (found.high - found.delta)


def test_the_source_of_the_questions_and_their_number_stand_with_every_table(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1], serving={"under": ["all"], "merged": True})
    world.publish_everything()
    summary = summarized(world)
    line = "Task ro_gsm8k: 500 test questions of word-problems-ro; accuracy is strict exact match."
    assert summary.evaluated_on == line
    page, markdown = world.report_file("report.html").decode(), world.report_file("summary.md").decode()
    captions = re.findall(r'<table class="figures">\s*<caption><span>(.*?)</span></caption>', page)
    assert captions == [line] * page.count('<table class="figures">')
    assert page.count(">Merged and unmerged<") == page.count(">Difference to BF16 served the same way, points<") == 1
    assert markdown.replace("\\", "").count(line) == len(re.findall(r"^\| :---", markdown, re.MULTILINE))
    assert line in on_the_terminal(summary)
    assert {cells["task_data"] for cells in world.csv_rows().values()} == {"word-problems-ro"}
    assert {cells["samples"] for cells in world.csv_rows().values()} == {"500"}


def test_bytes_held_in_training_are_a_column_of_their_own(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_run("bf16")
    world.publish_train("fp8", weight_bytes=1_572_864, operand_cache_bytes=1_572_864)
    world.publish_eval("fp8-s0")
    summary = summarized(world)
    assert markdown_cells(world, "FP8")[7:9] == ["1.50 MiB", "3.00 MiB"]
    assert markdown_cells(world, "BF16")[7:9] == ["1.50 MiB", "1.50 MiB"]
    assert world.csv_rows()["fp8"]["training_weight_bytes"] == str(2 * 1_572_864)
    assert "3.00 MiB" in on_the_terminal(summary)
    assert "3.00 MiB" in world.report_file("report.html").decode()


def test_validation_losses_say_their_precision(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4", "fp8"])
    world.publish_train("bf16", served_validation_loss=0.301)
    world.publish_train("fp4", served_validation_loss=0.4567)
    world.publish_train("fp8")  # by an earlier version
    summary = summarized(world, draw=True)
    header = next(line for line in world.report_file("summary.md").decode().splitlines() if "| train loss |" in line)
    assert "| validation loss (under the recipe) | validation loss (as served, bf16) |" in header
    lines = [line for line in world.report_file("summary.md").decode().splitlines() if line.startswith("| FP4 ")]
    assert "| 0.457 |" in lines[1]
    assert row(summary, "fp8").training.served_validation_loss is None
    assert world.csv_rows()["fp4"]["served_validation_loss"] == "0.4567"
    assert "validation, as served" in world.report_file("charts/loss-fp4.svg").decode()
    assert "validation, as served" not in world.report_file("charts/loss-fp8.svg").decode()


def test_with_one_seed_the_headline_quotes_no_spread_of_another_experiment(report_world: MakeWorld) -> None:
    document = yaml.safe_load((Path(__file__).parents[4] / "configs/sweeps/embedded.yaml").read_text(encoding="utf-8"))
    world = report_world(**document)
    world.publish_answers({"bf16-s0": right(411), "fp4-s0": right(375)})
    headline = summarized(world).headline
    assert "seeds differ, so another one may give other differences (docs/benchmarks.md has examples)" in headline
    assert "standard deviation" not in headline


def test_a_change_too_small_for_one_decimal_is_not_from_a_figure_to_itself(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_eval("base", [index < 543 for index in range(1319)])
    world.publish_train("bf16")
    world.publish_eval("bf16-s0", [index < 544 for index in range(1319)])
    assert "raised accuracy from 41.17 % to 41.24 %" in build_report(world.store, world.sweep, {}).summary.headline
