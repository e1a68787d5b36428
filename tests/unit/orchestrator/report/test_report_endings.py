"""The report says how many answers were cut off, empty or without the format, and where that could matter."""

import io

from rich.console import Console
from worlds.report import MakeWorld, ReportWorld, ended_lines, summarized

from surogate_bench.results import SampleLine
from surogate_bench_orchestrator.report import Summary, build_report, render_terminal_table
from surogate_bench_orchestrator.report.model.summary import Row


def row(summary: Summary, key: str) -> Row:
    return next(found for found in summary.all_rows() if found.key == key)


def evaluated(world: ReportWorld, run: str, samples: list[SampleLine]) -> None:
    world.publish_eval(run, [line.strict_match for line in samples], lines=samples)


def markdown_cells(world: ReportWorld, title: str) -> dict[str, str]:
    """Cells of the table of further figures."""
    written = world.report_file("summary.md").decode().splitlines()
    header = next(line for line in written if "| flexible accuracy |" in line)
    cells = next(line for line in reversed(written) if line.startswith(f"| {title} |"))
    return dict(zip(header.split(" | "), cells.split(" | "), strict=True))


def test_shares_of_cut_off_and_empty_answers_are_columns_everywhere(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1])
    for run, cut_off in (("bf16-s0", 0), ("bf16-s1", 0), ("fp8-s0", 4), ("fp8-s1", 9)):
        evaluated(world, run, ended_lines(60, cut_off=cut_off, unformatted=cut_off + 1))
    world.alter_manifest(world.layout.eval("fp8-s1"), result={"empty_answers": 3})
    summary = summarized(world, draw=True)
    cells = markdown_cells(world, "FP8")
    assert cells["cut off at max_gen_toks"] == "13 (6.5 %)"
    assert cells["empty answers"] == "3 (1.5 %)"
    assert cells["no answer in the format"] == "15 (7.5 %)"
    assert cells["tokens per answer"] == "5.0"
    assert markdown_cells(world, "BF16")["cut off at max_gen_toks"] == "0"
    found = world.csv_rows()
    assert found["fp8"]["cut_off_share"] == "0.065"
    assert found["fp8"]["empty_share"] == "0.015"
    assert found["fp8-s1"]["cut_off_answers"] == "9"
    score = row(Summary.model_validate_json(world.report_file("summary.json")), "fp8").score
    assert score is not None
    assert (score.cut_off_share, score.empty_share, score.unformatted_answers) == (0.065, 0.015, 15)
    assert "13 (6.5 %)" in world.report_file("report.html").decode()
    assert any(
        note.endswith("Such an answer is scored by what it contains up to that point.") for note in summary.notes
    )


def test_results_that_do_not_say_how_answers_ended_have_dashes_beside_those_that_do(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_eval("bf16-s0", [index < 50 for index in range(100)])
    evaluated(world, "fp8-s0", ended_lines(60, cut_off=7))
    summary = summarized(world)
    cells = markdown_cells(world, "BF16")
    assert [cells[name] for name in ("cut off at max_gen_toks", "no answer in the format", "tokens per answer")] == (
        ["–"] * 3
    )
    assert cells["empty answers"] == "0"
    old = row(summary, "bf16").score
    assert old is not None
    assert (old.cut_off_share, old.unfinished_share) == (None, None)


def test_a_report_of_such_results_alone_has_no_such_columns(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_everything()
    summarized(world)
    assert "cut off" not in world.report_file("summary.md").decode()
    assert "cut off" not in world.report_file("report.html").decode()


def test_a_note_names_the_differences_that_cut_off_answers_could_explain(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4", "qfp4"])
    evaluated(world, "base", ended_lines(2, cut_off=98))
    evaluated(world, "bf16-s0", ended_lines(60, cut_off=5))
    evaluated(world, "fp8-s0", ended_lines(55, cut_off=5))  # 5 below, of which 5 could have been right
    evaluated(world, "fp4-s0", ended_lines(54, cut_off=5))  # 6 below
    evaluated(world, "qfp4-s0", ended_lines(64))  # above, and 5 of the reference could have been right
    (note,) = [note for note in summarized(world).notes if "alone could explain the differences" in note]
    assert "the differences of BF16 to Base model, FP8 to BF16, FP8 to Base model, FP4 to Base model" in note
    assert "QFP4 to BF16" in note
    assert "FP4 to BF16 and" not in note.replace("QFP4", "")
    assert ", FP4 to BF16" not in note


def test_a_right_answer_that_was_cut_off_afterwards_explains_nothing(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    evaluated(world, "bf16-s0", ended_lines(97, cut_off=100))
    evaluated(world, "fp8-s0", ended_lines(90))
    notes = summarized(world).notes
    assert any("BF16 100 of 100 (100 %)" in note for note in notes)
    assert not any("alone could explain the differences" in note for note in notes)


def test_an_accuracy_near_zero_is_explained_where_answers_lack_the_format(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    evaluated(world, "base", ended_lines(1, unformatted=96))
    evaluated(world, "bf16-s0", ended_lines(40, unformatted=60))
    (footnote,) = summarized(world).footnotes
    assert footnote.startswith("Base model: 96 of 100 (96.0 %) answers are not in the format")
    assert footnote.endswith("is 0.0100.")
    out = io.StringIO()
    Console(width=200, file=out).print(render_terminal_table(build_report(world.store, world.sweep, {}).summary))
    assert "Base model: 96 of 100" in out.getvalue()


def test_an_accuracy_near_zero_of_answers_in_the_format_is_not_explained_away(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    evaluated(world, "base", ended_lines(1, unformatted=49))
    evaluated(world, "bf16-s0", ended_lines(60))
    assert summarized(world).footnotes == ()
