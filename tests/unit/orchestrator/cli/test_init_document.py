"""From answers to the text of a sweep file: what is written is what was answered, commented, and valid."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.specs.strict_yaml import read_yaml
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench_orchestrator.cli.commands.init.answers import Answers, DataFacts, Facts, Source, TaskAnswer
from surogate_bench_orchestrator.cli.commands.init.document import document_of, nested, valid_name
from surogate_bench_orchestrator.cli.commands.init.text import text_of

SWEEPS = Path(__file__).parents[4] / "configs" / "sweeps"
HUB_MODEL, HUB_DATA = Source("hub", "Qwen/Qwen3-0.6B"), Source("hub", "OpenLLM-Ro/ro_gsm8k")
CSV = Source("path", "/data/qa.csv")


def parsed(text: str) -> RecipeSweep:
    document: Any = read_yaml(text.encode())
    return parse_sweep(document)


def written(answers: Answers, facts: Facts | None = None) -> RecipeSweep:
    return parsed(text_of(document_of(answers, facts or Facts())))


def answers(
    model: Source = HUB_MODEL, data: Source = HUB_DATA, tasks: tuple[TaskAnswer, ...] = (), **settings: object
) -> Answers:
    return Answers(
        model=model,
        data=data,
        tasks=tasks,
        settings={path.replace("__", "."): value for path, value in settings.items()},
    )


def facts_of_file(**changes: Any) -> Facts:
    known: dict[str, Any] = {
        "splits": frozenset({"train"}), "records": 60, "shape": "question-answer", "fields": ("question", "answer"),
        "renamed": {}, "has_answers": True,
    }  # fmt: skip
    return Facts(data=DataFacts(**known | changes))


def test_without_answers_beside_model_and_data_it_is_the_reference_experiment() -> None:
    reference = load_sweep(SWEEPS / "qwen3-0.6b-ro-gsm8k.yaml")
    expected = reference.model_dump() | {
        "seeds": (0, 1),
        "serving": {**reference.serving.model_dump(), "under": ("bf16", "own")},
    }
    ours = written(answers())
    assert ours.model_dump() == expected | {"description": ours.description}


def test_built_in_model_and_data_are_the_embedded_experiment() -> None:
    reference = load_sweep(SWEEPS / "embedded.yaml")
    embedded = answers(Source("builtin", "tiny-qwen3-en"), Source("builtin", "word-problems-ro"), name="embedded")
    ours = written(embedded, Facts(positions=512))
    assert ours.model_dump() == reference.model_dump() | {"seeds": (0, 1), "description": ours.description}


@pytest.mark.parametrize(
    ("given", "facts", "expected"),
    [
        (answers(seeds=[3]), Facts(), {"seeds": (3,)}),
        (answers(recipes=["bf16"]), Facts(), {"serving.under": ("bf16",)}),
        (answers(training__max_steps=7), Facts(), {"training.max_steps": 7, "training.epochs": None}),
        (answers(training__lora__r=128), Facts(), {"training.lora.alpha": 256, "serving.max_lora_rank": 128}),
        (answers(), Facts(positions=1024), {"training.max_length": 1024, "serving.max_model_len": 1024}),
        (answers(data=CSV), facts_of_file(), {"data.hold_out.test": 6, "data.hold_out.validation": 3}),
        (answers(data=CSV), facts_of_file(records=10**6), {"data.hold_out.test": 500, "data.hold_out.validation": 100}),
        (answers(data=CSV), facts_of_file(splits=frozenset({"train", "test"})), {"data.hold_out.test": None}),
        (answers(data=CSV, data__validation_size=9), facts_of_file(), {"data.hold_out.validation": None}),
        (answers(data=CSV), facts_of_file(renamed={"question": "Q"}), {"data.fields.question": "Q"}),
        (
            answers(data=CSV),
            facts_of_file(shape="messages", has_answers=False),
            {
                "evaluation.task": "gsm8k", "evaluation.keep_from_task": ("data", "prompt"),
                "evaluation.chat_template": True, "data.hold_out.test": None,
            },
        ),
        (answers(tasks=(TaskAnswer("arc_easy"),)), Facts(), {"evaluation.keep_from_task": ("data", "prompt")}),
        (answers(data=Source("hub", "openai/gsm8k")), Facts(), {"evaluation.task": "en_gsm8k"}),
    ],
)  # fmt: skip
def test_what_follows_from_answers_and_facts(given: Answers, facts: Facts, expected: dict[str, object]) -> None:
    sweep = written(given, facts)
    found = {path: _value(sweep, path) for path in expected}
    assert found == expected


def _value(found: object, path: str) -> object:
    for part in path.split("."):
        found = getattr(found, part)
    return found


def test_further_tasks_have_their_own_data() -> None:
    tasks = (
        TaskAnswer("ro_gsm8k"),
        TaskAnswer("word_problem_choice"),
        TaskAnswer("en_gsm8k", CSV),
        TaskAnswer("arc_easy"),
    )
    evaluation = written(answers(tasks=tasks)).evaluation
    assert (evaluation.task, evaluation.further_tasks) == ("ro_gsm8k", ("word_problem_choice", "en_gsm8k", "arc_easy"))
    data = [entry.data and (entry.data.builtin or str(entry.data.path)) for entry in evaluation.tasks]
    assert data == ["word-problems-en", "/data/qa.csv", None]


COMBINATIONS = list(
    itertools.product(
        (HUB_MODEL, Source("path", "/models/a b"), Source("builtin", "smollm2-135m")),
        (
            (HUB_DATA, Facts()),
            (Source("builtin", "word-problems-en"), Facts()),
            (CSV, facts_of_file()),
            (CSV, facts_of_file(shape="messages", has_answers=False, splits=frozenset({"train", "validation"}))),
        ),
        ((), (TaskAnswer("gsm8k"),), (TaskAnswer("en_gsm8k"), TaskAnswer("word_problem_choice"))),
        ({}, {"recipes": ["bf16", "qbnb"], "training.max_steps": 5, "seeds": [0]}),
    )
)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_combination_is_valid_and_its_defaults_are_the_ones_in_comments(combination: Any) -> None:
    model, (data, facts), tasks, settings = combination
    document = document_of(Answers(model=model, data=data, tasks=tasks, settings=settings), facts)
    text = text_of(document)
    sweep = parsed(text)
    assert sweep == parse_sweep(document)
    assert parsed(re.sub(r"(?m)^( *)#(?! )", r"\1", text)) == sweep, "uncommented defaults change nothing"


def test_no_comment_is_wider_than_120_columns_and_every_setting_has_one() -> None:
    text = text_of(document_of(answers(data=CSV), facts_of_file()))
    lines = text.splitlines()
    assert max(len(line) for line in lines if line.lstrip().startswith("#")) <= 120
    for before, line in itertools.pairwise(lines):
        if re.match(r" *#?[a-z_]+:", line) and not line.lstrip().startswith("#  "):
            assert before.lstrip().startswith("# "), line


UNUSUAL = [
    "no", "Yes", "1e3", "0x1f", "012", "1:30", "a: b", "a #b", "# a", "", " a", "~", "null", "Întrebare", "'", '"',
    "a\nb", "{a}", "[a]", "*a", "&a", "!a", "%a", "@a", "`a", "- a", "? a", "2026-01-01", "\u2028", "\x85", "🙂", ".5",
    "...", "---", "=", "<<", "1_000", "+1", "on", "y", "\x07", "\ufeff",
]  # fmt: skip


@pytest.mark.parametrize("text", UNUSUAL)
def test_unusual_texts_come_back_as_they_were(text: str) -> None:
    sweep = written(answers(description=text, data__config=text))
    assert (sweep.description, sweep.data.config) == (text, text)


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    assert written(answers(description=text)).description == text


@pytest.mark.parametrize("text", ["no", "1e3", "012", "1:30", "a: b", "a #b", "Întrebare", "on", "0o17", ".inf"])
def test_what_another_parser_might_read_differently_is_in_quotes(text: str) -> None:
    assert f'description: "{text}"\n' in text_of({"description": text})


def test_plain_names_have_no_quotes() -> None:
    text = text_of({"description": "fp8", "recipes": ["bf16", "qfp8-bf16", "../a.yaml"], "model": {"hub": "a/B-1.5_c"}})
    assert "description: fp8\n" in text
    assert "recipes: [bf16, qfp8-bf16, ../a.yaml]\n" in text
    assert "  hub: a/B-1.5_c\n" in text
    assert yaml.safe_load(text)["recipes"] == ["bf16", "qfp8-bf16", "../a.yaml"]


@pytest.mark.parametrize(
    ("text", "name"),
    [("Qwen3-0.6B", "qwen3-0-6b"), ("Ă", "sweep"), ("-a-", "a"), ("a" * 39 + "-b", "a" * 39), ("My Sweep", "my-sweep")],
)
def test_names_become_labels(text: str, name: str) -> None:
    assert valid_name(text) == name


def test_settings_by_path_become_sections_in_their_order() -> None:
    settings = {"b.c.d": 1, "a": 2, "b.e": 3}
    assert list(nested(settings).items()) == [("b", {"c": {"d": 1}, "e": 3}), ("a", 2)]
