"""Marks in tables and charts: each is explained where it stands, and nothing is explained that is not there."""

import html
import io
import re
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console
from worlds.report import MakeWorld, ReportWorld, right, summarized

from surogate_bench.layout import BASE_RUN
from surogate_bench_orchestrator.report import Summary, build_report, render_terminal_table
from surogate_bench_orchestrator.report.text.formats import DAGGER, DOUBLE_DAGGER, PARALLEL, PILCROW, SECTION

MARKS = (DAGGER, DOUBLE_DAGGER, SECTION, PILCROW, PARALLEL)
ADAPTER = {"name": "theirs", "hub": "lab/adapter", "trained_under": "fp8"}
TRAINER = {"name": "other", "command": ["other", "train"], "trained_under": "fp8"}
Prepare = Callable[[MakeWorld], ReportWorld]


def many_empty(world: ReportWorld, run: str, under: str | None = None, **way: object) -> None:
    world.alter_manifest(world.layout.eval(run, under, **way), result={"empty_answers": 200})


def everything(report_world: MakeWorld) -> ReportWorld:
    """Several seeds and every way of serving, with rows of other software and a further task."""
    world = report_world(
        recipes=["bf16", "fp8", "fp4"], seeds=[0, 1], serving={"under": ["all"], "merged": True}, adapters=[ADAPTER],
        trainers=[TRAINER], evaluation={"tasks": ["ro_gsm8k", "arc_easy"]},
    )  # fmt: skip
    world.publish_everything()
    for seed in (0, 1):
        world.publish_foreign_train("other", seed)
    for run in ("theirs", "other-s0", "other-s1"):
        for under in (None, "fp8", "fp4"):
            world.publish_eval(run, under=under)
    return world


def with_marks_everywhere(report_world: MakeWorld) -> ReportWorld:
    world = everything(report_world)
    many_empty(world, "fp8-s1")
    many_empty(world, "fp8-s0", "fp4")
    many_empty(world, "fp8-s0", "fp8", merged=True)
    many_empty(world, BASE_RUN)
    for run in (BASE_RUN, "bf16-s0", "fp8-s0", "fp8-s1", "theirs"):
        world.publish_eval(run, task="arc_easy")
    many_empty(world, "fp8-s0", task="arc_easy")
    return world


def only_a_further_task_has_empty_answers(report_world: MakeWorld) -> ReportWorld:
    world = everything(report_world)
    world.publish_eval("fp8-s0", task="arc_easy")
    many_empty(world, "fp8-s0", task="arc_easy")
    return world


def only_a_merged_adapter_has_empty_answers(report_world: MakeWorld) -> ReportWorld:
    world = everything(report_world)
    many_empty(world, "fp8-s0", "fp8", merged=True)
    return world


def the_base_alone_has_empty_answers(report_world: MakeWorld) -> ReportWorld:
    world = report_world(recipes=["bf16", "fp4"], serving={"under": ["own"]})
    world.publish_everything()
    many_empty(world, BASE_RUN)
    return world


def one_run_of_a_row_that_cannot_be_scored(report_world: MakeWorld) -> ReportWorld:
    world = report_world(recipes=["bf16", "fp4"], seeds=[0, 1])
    world.publish_everything()
    world.publish_train("fp8", 0)
    many_empty(world, "fp4-s1")
    return world


def an_adapter_beside_seeds(report_world: MakeWorld) -> ReportWorld:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1], serving={"under": ["own"]}, adapters=[ADAPTER])
    world.publish_everything()
    world.publish_eval("theirs")
    world.publish_eval("theirs", under="fp8")
    return world


def seeds_that_are_missing(report_world: MakeWorld) -> ReportWorld:
    world = report_world(recipes=["bf16", "fp4", "fp8"], seeds=[0, 1, 2], serving={"under": ["own"]})
    world.publish_eval(BASE_RUN)
    for run, count in {
        "bf16-s0": 400,
        "bf16-s1": 401,
        "fp4-s0": 200,
        "fp4-s1": 201,
        "fp4-s2": 202,
        "fp8-s1": 9,
    }.items():
        recipe, _, seed = run.rpartition("-s")
        world.publish_train(recipe, int(seed))
        world.publish_eval(run, right(count))
    world.publish_eval("fp4-s0", right(400), under="fp4")
    world.publish_eval("fp4-s1", right(400), under="fp4")
    return world


def answers_that_were_not_kept(report_world: MakeWorld) -> ReportWorld:
    world = report_world(
        recipes=["bf16", "fp8", "fp4"], seeds=[0, 1], serving={"under": ["own"], "merged": True},
        evaluation={"tasks": ["ro_gsm8k", "arc_easy"]},
    )  # fmt: skip
    for run in ("bf16-s0", "bf16-s1", "fp8-s0", "fp8-s1", "fp4-s0"):
        recipe, _, seed = run.rpartition("-s")
        world.publish_train(recipe, int(seed))
        lacks = run in {"fp8-s1", "bf16-s1"}
        world.publish_eval(run, right(300), samples=not lacks)
        world.publish_eval(run, right(300), task="arc_easy", samples=not lacks)
        world.publish_eval(run, right(300), merged=True, samples=not lacks)
        if recipe != "bf16":
            world.publish_eval(run, right(310), under=recipe, samples=not lacks)
    world.publish_eval(BASE_RUN, samples=False)
    return world


def clear_differences(report_world: MakeWorld) -> ReportWorld:
    world = report_world(recipes=["bf16", "fp8", "fp4"], seeds=[0, 1, 2], serving={"under": ["all"]})
    for seed in range(3):
        for recipe, count in (("bf16", 400), ("fp8", 398), ("fp4", 150)):
            world.publish_train(recipe, seed)
            for under, more in ((None, 0), ("fp8", 1), ("fp4", 60)):
                world.publish_eval(f"{recipe}-s{seed}", right(count + more + seed), under=under)
    return world


def clear_differences_as_trained(report_world: MakeWorld) -> ReportWorld:
    """Differences between two ways of serving are clear, those to the reference are not."""
    world = report_world(recipes=["bf16", "fp4"], seeds=[0, 1, 2], serving={"under": ["own"]})
    for seed in range(3):
        for recipe, count in (("bf16", 400), ("fp4", 399)):
            world.publish_train(recipe, seed)
            world.publish_eval(f"{recipe}-s{seed}", right(count + seed))
        world.publish_eval(f"fp4-s{seed}", right(480 + seed), under="fp4")
    return world


def one_seed(report_world: MakeWorld) -> ReportWorld:
    world = report_world(recipes=["bf16", "fp8", "fp4"], serving={"under": ["all"], "merged": True}, adapters=[ADAPTER])
    world.publish_everything()
    world.publish_eval("theirs")
    return world


WORLDS = [
    with_marks_everywhere, only_a_further_task_has_empty_answers, only_a_merged_adapter_has_empty_answers,
    the_base_alone_has_empty_answers, one_run_of_a_row_that_cannot_be_scored, an_adapter_beside_seeds,
    seeds_that_are_missing, answers_that_were_not_kept, clear_differences, clear_differences_as_trained, one_seed,
]  # fmt: skip


def marks_in(text: str) -> set[str]:
    return {mark for mark in MARKS if mark in text} | ({"*"} if re.search(rf"\d{DAGGER}?\*", text) else set())


def explained(lines: list[str]) -> set[str]:
    return {line[0] for line in lines if line.startswith((*MARKS, "* p"))}


def markdown_parts(world: ReportWorld) -> Iterator[tuple[str, set[str], set[str]]]:
    """Yield each section's heading, the marks in its tables, and those that it explains."""
    text = world.report_file("summary.md").decode().replace("\\", "")
    for section in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        lines = section.splitlines()
        tables = "\n".join(line for line in lines if line.startswith("|"))
        yield lines[0], marks_in(tables), explained(lines)


def page_parts(world: ReportWorld) -> Iterator[tuple[str, set[str], set[str]]]:
    page = html.unescape(world.report_file("report.html").decode())
    for section in re.findall(r"<section>(.*?)</section>", page, flags=re.DOTALL):
        tables = " ".join(re.findall(r"<td.*?</td>|<th scope=\"row\">.*?</th>", section, flags=re.DOTALL))
        yield section[:60], marks_in(tables), explained(re.findall(r'<p class="footnote">(.*?)</p>', section))


def terminal_part(summary: Summary, width: int) -> tuple[str, set[str], set[str]]:
    out = io.StringIO()
    console = Console(width=width, file=out, soft_wrap=True)
    console.print(render_terminal_table(summary))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    notes = [line for line in lines if line.startswith((*MARKS, "* p"))]
    return f"{width} columns", marks_in("\n".join(line for line in lines if line not in notes)), explained(notes)


@pytest.mark.parametrize("prepare", WORLDS, ids=lambda prepare: prepare.__name__)
def test_every_mark_in_a_table_is_explained_with_it_and_nothing_else_is(
    prepare: Prepare, report_world: MakeWorld
) -> None:
    world = prepare(report_world)
    summary = summarized(world)
    found = [*markdown_parts(world), *page_parts(world)]
    found += [terminal_part(summary, width) for width in (40, 60, 80, 100, 200)]
    assert [(where, shown) for where, shown, _ in found] == [(where, explained) for where, _, explained in found]


def test_the_worlds_above_have_every_mark(report_world: MakeWorld) -> None:
    found: dict[str, set[str]] = {}
    for prepare in WORLDS:
        world = prepare(
            lambda prepare=prepare, **changes: report_world(name=prepare.__name__.replace("_", "-"), **changes)
        )
        world.folder = world.folder / prepare.__name__
        summarized(world)
        for where, shown, _ in markdown_parts(world):
            heading = "# results" if where.startswith("# ") else where
            found[heading] = found.get(heading, set()) | shown
    everywhere = {DAGGER, DOUBLE_DAGGER, SECTION, PARALLEL, "*"}
    assert found["# results"] == everywhere | {PILCROW}
    assert found["## Trained under × served under"] == everywhere
    assert found["## Further tasks"] >= {SECTION, PILCROW, PARALLEL, DOUBLE_DAGGER}
    assert found["## Merged before serving"] >= {SECTION, PARALLEL}
    assert found["## Each run"] == {SECTION, PILCROW, PARALLEL}


@pytest.mark.parametrize(
    "prepare",
    [
        with_marks_everywhere,
        the_base_alone_has_empty_answers,
        an_adapter_beside_seeds,
        seeds_that_are_missing,
        clear_differences,
        clear_differences_as_trained,
        answers_that_were_not_kept,
    ],
    ids=lambda prepare: prepare.__name__,
)
def test_every_mark_in_a_chart_is_explained_in_it_and_nothing_else_is(
    prepare: Prepare, report_world: MakeWorld
) -> None:
    world = prepare(report_world)
    summarized(world, draw=True)
    for name in ("accuracy", "served-as-trained", "matrix"):
        svg = html.unescape(world.report_file(f"charts/{name}.svg").decode())
        texts = re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", svg)
        notes = [text for text in texts if text.startswith((*MARKS, "* p"))]
        drawn = [text for text in texts if text not in notes and len(text) < 60]
        assert marks_in("\n".join(drawn)) == explained(notes), name


def test_the_interval_of_one_adapter_among_seeds_is_marked_in_the_matrix(report_world: MakeWorld) -> None:
    world = an_adapter_beside_seeds(report_world)
    served = summarized(world).served
    assert served is not None
    line = next(line for line in world.report_file("summary.md").decode().splitlines() if line.startswith("| theirs |"))
    assert line.count(DOUBLE_DAGGER) == 2
    assert f"{DOUBLE_DAGGER} One adapter: the interval covers questions, not seeds." in served.footnotes


def test_a_row_of_several_seeds_does_not_claim_that_all_of_them_have_empty_answers(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1, 2], evaluation={"max_empty_fraction": 0.1})
    world.publish_everything()
    world.alter_manifest(world.layout.eval("fp8-s1"), result={"empty_answers": 100})  # 6.7 % of all three
    summary = build_report(world.store, world.sweep, {}).summary
    assert f"{SECTION} More than 10 % of the answers are empty, of at least one seed." in summary.footnotes


def test_stars_in_the_chart_of_ways_of_serving_are_explained_in_it(report_world: MakeWorld) -> None:
    world = clear_differences_as_trained(report_world)
    summarized(world, draw=True)
    svg = world.report_file("charts/served-as-trained.svg").decode()
    assert re.search(r"\d\*", svg)
    assert "* p &lt; 0.05" in svg
