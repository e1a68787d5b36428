"""The report names the metrics by which answers were scored, and describes strict exact match only where it is one."""

import io
import json

import pytest
from rich.console import Console
from worlds.report import MakeWorld, ReportWorld, summarized

from surogate_bench.results import SampleLine
from surogate_bench_orchestrator.report import Summary, build_report, render_terminal_table

RECIPES = ["bf16", "fp8"]
SCORED = (("base", 30), ("bf16-s0", 60), ("fp8-s0", 55))


def without_format(right: int) -> list[SampleLine]:
    """100 answers, of which the first are right; in all others the metric finds none."""
    return [
        SampleLine(
            index=index, question=f"q{index}", target="1", response="one", strict_match=index < right,
            flexible_match=index < right, formatted=index < right, finish_reason="stop", tokens=1,
        )
        for index in range(100)
    ]  # fmt: skip


def scored_by(world: ReportWorld, metric: str | None, beside: str | None = None) -> Summary:
    world.publish_prepare()
    for run, right in SCORED:
        world.publish_eval(run, [index < right for index in range(100)], accuracy_is=metric, beside=beside)
    return summarized(world)


def written(world: ReportWorld) -> str:
    """Text of the page, of the Markdown file without its escapes, and of the terminal."""
    out = io.StringIO()
    Console(width=200, file=out).print(render_terminal_table(build_report(world.store, world.sweep, {}).summary))
    markdown = world.report_file("summary.md").decode().replace("\\", "")
    return "\n".join((world.report_file("report.html").decode(), markdown, out.getvalue()))


def csv_lines(world: ReportWorld, name: str) -> list[dict[str, str]]:
    return world.csv_lines(name)


def of_fp8(world: ReportWorld, name: str) -> dict[str, str]:
    return next(line for line in csv_lines(world, name) if line["key"] == "fp8")


def test_a_primary_task_of_multiple_choice_has_its_second_metric_by_name(report_world: MakeWorld) -> None:
    world = report_world(recipes=RECIPES)
    summary = scored_by(world, "acc", "acc_norm")
    assert (summary.metric, summary.second_metric) == ("acc", "acc_norm")
    assert Summary.model_validate_json(world.report_file("summary.json")) == summary
    text = written(world)
    assert "| Precision / Config | acc_norm | questions |" in text
    assert '<th scope="col" class="number">acc_norm</th>' in text
    for wrong in ("lexible", "exact match", "last number", "final number"):
        assert wrong not in text
    fp8 = of_fp8(world, "summary.csv")
    assert (fp8["metric"], fp8["second_metric"]) == ("acc", "acc_norm")
    assert float(fp8["flexible_accuracy"]) == pytest.approx(0.55)  # by acc_norm: that of the lines published here


def test_a_second_metric_is_shown_literally_in_markdown(report_world: MakeWorld) -> None:
    world = report_world(recipes=RECIPES)
    scored_by(world, "acc", "a|b")
    assert "| Precision / Config | a\\|b | questions |" in world.report_file("summary.md").decode()


def test_a_metric_that_the_sweep_names_stands_alone(report_world: MakeWorld) -> None:
    world = report_world(recipes=RECIPES, serving={"under": ["fp8"]})
    world.publish_eval("fp8-s0", [True, False] * 50, accuracy_is="acc_norm", under="fp8")
    summary = scored_by(world, "acc_norm")
    assert summary.second_metric is None
    assert all(row.score is None or row.score.flexible_accuracy is None for row in summary.rows)
    text = written(world)
    assert "| Precision / Config | questions |" in text
    assert "lexible" not in text
    fp8 = of_fp8(world, "summary.csv")
    assert (fp8["metric"], fp8["second_metric"], fp8["flexible_accuracy"]) == ("acc_norm", "", "")
    scored = [line["flexible_accuracy"] for line in csv_lines(world, "matrix.csv") if line["accuracy"]]
    assert scored == [""] * 4


def test_a_further_task_with_one_metric_does_not_repeat_it_as_a_second(report_world: MakeWorld) -> None:
    world = report_world(recipes=RECIPES, evaluation={"tasks": ["ro_gsm8k", "arc_easy"]})
    for run, right in SCORED:
        world.publish_eval(run, [index < right for index in range(100)], task="arc_easy", accuracy_is="acc")
    summary = scored_by(world, None)
    assert summary.second_metric == "flexible exact match"
    fp8 = of_fp8(world, "tasks.csv")
    assert (fp8["accuracy"], fp8["metric"], fp8["second_metric"], fp8["flexible_accuracy"]) == ("0.55", "acc", "", "")


@pytest.mark.parametrize(("metric", "explained"), [(None, True), ("exact_match,remove_whitespace", False)])
def test_an_accuracy_near_zero_is_explained_by_the_format_of_strict_exact_match_where_it_is_that(
    report_world: MakeWorld, metric: str | None, explained: bool
) -> None:
    world = report_world(recipes=RECIPES, evaluation={"tasks": ["ro_gsm8k", "gsm8k"]})
    for task in (None, "gsm8k"):
        world.publish_eval("base", lines=without_format(1), task=task, accuracy_is=metric)
    summary = summarized(world)
    for notes in (summary.footnotes, summary.further[0].footnotes):
        assert any("are not in the format" in note for note in notes) == explained
    text = written(world)
    assert ("strict exact match" in text) == explained
    assert ("Flexible accuracy takes the last number" in text) == explained
    assert f"in the format that {metric or 'strict exact match'} reads count as wrong" in text


@pytest.mark.parametrize(("metric", "second"), [(None, "flexible exact match"), ("acc", None)])
def test_a_summary_of_a_version_without_second_metrics_is_read(
    report_world: MakeWorld, metric: str | None, second: str | None
) -> None:
    world = report_world(recipes=RECIPES)
    scored_by(world, metric)
    earlier = json.loads(world.report_file("summary.json"))
    assert ("second_metric" in earlier) == (metric is not None)
    earlier.pop("second_metric", None)
    assert Summary.model_validate(earlier).second_metric == second


def test_a_summary_by_strict_and_flexible_exact_match_names_neither(report_world: MakeWorld) -> None:
    world = report_world(recipes=RECIPES)
    scored_by(world, None)
    assert not {"metric", "second_metric"} & json.loads(world.report_file("summary.json")).keys()
    assert not {"metric", "second_metric"} & of_fp8(world, "summary.csv").keys()
    assert "| Precision / Config | flexible accuracy | questions |" in written(world)
