"""No output ranks recipes without a test behind it: every text of a sweep, from its status to its report."""

import html
import io
import re
from collections.abc import Callable, Iterator

import pytest
import yaml
from finished_stages import manifest_of
from rich.console import Console
from worlds.report import MakeWorld, ReportWorld, right, summarized

from surogate_bench.layout import BASE_RUN
from surogate_bench_orchestrator.cli.terminal.live_table import LineLog, render_progress
from surogate_bench_orchestrator.controller.status.builder import build_status
from surogate_bench_orchestrator.controller.status.state import SweepState
from surogate_bench_orchestrator.domain.observed import Observed
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.report import Summary, render_terminal_table
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.resource.definition import definition
from surogate_bench_orchestrator.resource.status import SweepStatus
from surogate_bench_orchestrator.sweep.rows import sweep_progress
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

STARS = re.compile(r"\d[†]?\*+")
P_VALUE = re.compile(r"\bp ?[=<] ?0?\.\d+")
SIGNIFICANT = re.compile(r"significant", re.IGNORECASE)
RANKED = re.compile(
    r"\b(better|worse|best|worst|winner|winning|superior|inferior|outperforms?|beats?)\b|"
    r"scores? (significantly )?(lower|higher)|shows? a difference",
    re.IGNORECASE,
)
EXPLAINED = re.compile(r"\bp values (are|in the table)", re.IGNORECASE)
CONCLUSIONS = (STARS, P_VALUE, SIGNIFICANT, RANKED, EXPLAINED)
WIDE = 400
ADAPTER = {"name": "theirs", "hub": "lab/adapter", "trained_under": "fp8"}
Prepare = Callable[[MakeWorld], ReportWorld]


def sweep(report_world: MakeWorld, seeds: dict[str, list[int]], **changes: object) -> ReportWorld:
    """Publish recipes with very different accuracies on every way of serving, merged and on a further task."""
    settings: dict[str, object] = {
        "recipes": list(seeds), "seeds": sorted({seed for of in seeds.values() for seed in of}),
        "serving": {"under": ["all"], "merged": True}, "evaluation": {"tasks": ["ro_gsm8k", "arc_easy"]},
        "adapters": [ADAPTER] if "fp8" in seeds else [],
    }  # fmt: skip
    world = report_world(**(settings | changes))
    world.publish_prepare()
    for number, (recipe, of) in enumerate(seeds.items()):
        for seed in of:
            world.publish_train(recipe, seed)
            publish_scores(world, f"{recipe}-s{seed}", recipe, 420 - 120 * number + seed)
    for run in (BASE_RUN, *(adapter.name for adapter in world.sweep.adapters)):
        publish_scores(world, run, None if run == BASE_RUN else "fp8", 40)
    return world


def publish_scores(world: ReportWorld, run: str, recipe: str | None, count: int) -> None:
    for number, under in enumerate(world.sweep.scored_under(recipe)):
        world.publish_eval(run, right(count + 30 * number), under=under)
    for task in world.sweep.evaluation.further_tasks:
        world.publish_eval(run, right(count - 20), task=task)
    for under in world.sweep.scored_merged(recipe) if recipe else ():
        world.publish_eval(run, right(count - 35), under=under, merged=True)


def one_seed(report_world: MakeWorld) -> ReportWorld:
    return sweep(report_world, {"bf16": [0], "fp8": [0], "fp4": [0]})


def one_seed_as_in_the_default_sweep(report_world: MakeWorld) -> ReportWorld:
    return sweep(report_world, {"bf16": [0], "fp8": [0], "fp4": [0]}, serving={"under": ["bf16", "own"]})


def one_seed_without_a_reference(report_world: MakeWorld) -> ReportWorld:
    return sweep(report_world, {"fp8": [0], "fp4": [0]}, serving={})


def one_seed_each_but_not_the_same(report_world: MakeWorld) -> ReportWorld:
    return sweep(report_world, {"bf16": [0], "fp8": [1], "fp4": [2]}, serving={})


def one_seed_in_common(report_world: MakeWorld) -> ReportWorld:
    return sweep(report_world, {"bf16": [0], "fp8": [0, 1], "fp4": [0, 2]}, serving={"under": ["own"]}, adapters=[])


def three_seeds(report_world: MakeWorld) -> ReportWorld:
    return sweep(report_world, {"bf16": [0, 1, 2], "fp8": [0, 1, 2], "fp4": [0, 1, 2]})


def three_seeds_without_a_clear_difference(report_world: MakeWorld) -> ReportWorld:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1, 2])
    for seed in range(3):
        for recipe in ("bf16", "fp8"):
            world.publish_train(recipe, seed)
            world.publish_eval(f"{recipe}-s{seed}", right(400 + 9 * (seed if recipe == "fp8" else 2 - seed)))
    return world


UNTESTED = [one_seed, one_seed_as_in_the_default_sweep, one_seed_without_a_reference, one_seed_each_but_not_the_same]
SEVERAL = [one_seed_in_common, three_seeds, three_seeds_without_a_clear_difference]


def texts_of(world: ReportWorld, *, draw: bool = False) -> tuple[Summary, dict[str, str]]:
    """Return the summary, and every text about the sweep that is shown to a user, by where."""
    summary = summarized(world, draw=draw)
    page = re.sub(
        r"<style>.*?</style>|data:image\S*|<details>.*?</details>", "", read(world, "report.html"), flags=re.S
    )
    texts = {
        "headline": summary.headline,
        "notes": "\n".join((*summary.notes, *summary.footnotes, *summary.detail_footnotes, *summary.run_footnotes)),
        "summary.md": read(world, "summary.md").replace("\\", ""),
        "report.html": html.unescape(re.sub(r"<[^>]+>", " ", page)),
        "terminal": printed(render_terminal_table(summary)),
        **dict(_of_the_status(world)),
    }
    for name in ("accuracy", "served-as-trained", "matrix") if draw else ():
        if (svg := world.store.get(f"{world.layout.report}/charts/{name}.svg")) is not None:
            texts[name] = html.unescape("\n".join(re.findall(r">([^<]+)<", svg.decode())))
    return summary, texts


def read(world: ReportWorld, name: str) -> str:
    return world.report_file(name).decode()


def printed(shown: object) -> str:
    out = io.StringIO()
    Console(width=WIDE, file=out).print(shown)
    return out.getvalue()


def _of_the_status(world: ReportWorld) -> Iterator[tuple[str, str]]:
    """Yield what `surogate-bench status`, its lines, `kubectl get` and `kubectl get -o yaml` show."""
    laid_out = plan(world.sweep, "s3://bucket")
    done = {}
    for run in laid_out.runs:
        for each in run.evaluations:
            key = world.layout.eval(run.name, each.under, merged=each.merged, task=each.further)
            if (stored := world.store.get(f"{key}/manifest.json")) is not None:
                result = yaml.safe_load(stored)["result"]
                done[each.task.name] = manifest_of(
                    each.task.request, strict=result["strict"], samples=result["samples"]
                )
    snapshot = Snapshot(plan=laid_out, observed=Observed(done=frozenset(done), tasks={}, slots=2), manifests=done)
    progress = sweep_progress(snapshot)
    yield "status", printed(render_progress(progress))
    out = io.StringIO()
    LineLog(Console(width=WIDE, file=out)).show(progress)
    yield "lines", out.getvalue()
    state = SweepState(generation=1, spec_hash="abc", results_uri="s3://b/r", snapshot=snapshot)
    status = build_status(state, SweepStatus(), "2026-01-01T00:00:00Z").to_object()
    (version,) = definition()["spec"]["versions"]
    columns = [each["name"] for each in version["additionalPrinterColumns"]]
    yield "columns of the resource", f"{columns} {status['best']}" if "best" in status else str(columns)
    yield "rows of the resource", yaml.safe_dump(status["runs"])


@pytest.mark.parametrize("prepare", UNTESTED, ids=lambda prepare: prepare.__name__)
def test_with_one_seed_no_output_has_a_conclusion(prepare: Prepare, report_world: MakeWorld) -> None:
    _, texts = texts_of(prepare(report_world), draw=prepare is one_seed)
    found = {
        where: [match[0] for each in CONCLUSIONS for match in each.finditer(text)] for where, text in texts.items()
    }
    assert not {where: conclusions for where, conclusions in found.items() if conclusions}


def test_the_outputs_of_one_seed_have_every_part_that_could_hold_a_conclusion(report_world: MakeWorld) -> None:
    summary, texts = texts_of(one_seed(report_world), draw=True)
    assert {"headline", "summary.md", "report.html", "terminal", "status", "accuracy", "matrix"} <= texts.keys()
    for heading in ("Trained under", "Merged before serving", "Further tasks", "Δ BF16", "Notes"):
        assert heading in texts["summary.md"]
    assert "0.840" in texts["status"]
    assert "Highest so far" in texts["columns of the resource"]
    assert "bf16 0.840 (1 seed)" in texts["columns of the resource"]
    assert summary.served is not None
    assert summary.merged is not None
    assert "Merging the adapter" in texts["terminal"]


def test_without_a_reference_the_headline_picks_no_recipe(report_world: MakeWorld) -> None:
    headline = texts_of(one_seed_without_a_reference(report_world))[0].headline
    assert headline.startswith(
        "Fine-tuned, the model solved 84.0 % with FP8 (seed 0) and 60.0 % with FP4 (seed 0) of 500 questions of "
        "word-problems-ro; without fine-tuning, 8.0 %. There is no unquantized run to compare the others with."
    )


def comparisons(summary: Summary) -> Iterator[Comparison]:
    """Yield every comparison of a summary, tested or not."""
    rows = [*summary.all_rows(), *(row for further in summary.further for row in (*further.rows, *further.runs))]
    found = [each for row in rows for each in (row.versus_reference, row.versus_base)]
    if served := summary.served:
        cells = [cell for row in served.all_rows() for cell in row.cells]
        found += [each for cell in cells for each in (cell.versus_published, cell.versus_reference)]
        found += [each for split in served.splits for each in (split.total, split.training, split.serving)]
    if merged := summary.merged:
        found += [cell.versus_unmerged for row in merged.all_rows() for cell in row.cells]
    return (each for each in found if each is not None)


def starred(summary: Summary) -> set[str]:
    """Return the differences that may have stars, as they are printed."""
    return {
        f"{number}{dagger}{stars}"
        for each in comparisons(summary)
        if len(each.seeds) > 1 and (stars := formats.significance(each.p_adjusted))
        for number in (formats.signed(each.delta)[1:], formats.points(each.delta)[1:])
        for dagger in ("", formats.DAGGER)
    }


@pytest.mark.parametrize("prepare", SEVERAL, ids=lambda prepare: prepare.__name__)
def test_with_several_seeds_every_conclusion_is_based_on_a_test(prepare: Prepare, report_world: MakeWorld) -> None:
    summary, texts = texts_of(prepare(report_world), draw=prepare is three_seeds)
    tests = [each for each in comparisons(summary) if each.p_adjusted is not None]
    assert all(len(each.seeds) > 1 for each in tests)
    p_values = {formats.p_text(each.p_adjusted).replace(" ", "") for each in tests if each.p_adjusted is not None}
    legend = {"p<0.05", "p<0.01", "p<0.001"} if starred(summary) else set()
    for where, text in texts.items():
        numbers = {match[0].replace(" ", "") for match in P_VALUE.finditer(text)}
        assert numbers <= p_values | legend, where
        stars = set(re.findall(r"\d+\.\d+†?\*+", text))
        assert stars <= starred(summary), where
        assert not re.search(r"\b(better|worse|best|worst|winner|beats?)\b", text, re.IGNORECASE), where
        assert not SIGNIFICANT.search(text) or tests, where


@pytest.mark.parametrize("prepare", SEVERAL, ids=lambda prepare: prepare.__name__)
def test_the_headline_of_several_seeds_ranks_what_was_tested_and_nothing_else(
    prepare: Prepare, report_world: MakeWorld
) -> None:
    summary, texts = texts_of(prepare(report_world))
    ranked = re.findall(r"scores? significantly (?:lower|higher)", texts["headline"])
    clear = [
        row for row in summary.rows if row.versus_reference and formats.significance(row.versus_reference.p_adjusted)
    ]
    assert bool(ranked) == bool(clear)
    alike = "not differ significantly" in texts["headline"]
    tested = [row for row in summary.rows if row.versus_reference and row.versus_reference.p_adjusted is not None]
    assert alike == (len(tested) > len(clear))


def test_these_sweeps_have_stars_and_tests_where_there_is_something_to_test(report_world: MakeWorld) -> None:
    summary, texts = texts_of(three_seeds(report_world))
    assert starred(summary)
    assert STARS.search(texts["summary.md"])
    assert P_VALUE.search(texts["summary.md"])
    assert "score significantly lower" in texts["headline"]
