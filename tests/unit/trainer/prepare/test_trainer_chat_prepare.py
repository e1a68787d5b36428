"""Conversations through the prepare stage: what is published, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from models.chat_templates import BARE, CHATML, HEADED, TALK
from sweeps import MakeSweep
from transformers import PreTrainedTokenizerFast

from surogate_bench.errors import ConfigError
from surogate_bench.results import PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.prepare import prepare_stage


@pytest.fixture
def chat_model(model_folder: Path, special: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """The toy model with a chat template."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in model_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    special.chat_template = CHATML
    special.save_pretrained(folder)
    return folder


def test_conversations_are_prepared_for_training(
    make_sweep: MakeSweep, chat_model: Path, data_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [
        json.dumps({"messages": [*TALK["messages"][:3], {"role": "assistant", "content": str(n)}]}) for n in range(20)
    ]
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "test.jsonl").write_bytes((data_folder / "test.jsonl").read_bytes())
    sweep = make_sweep(model={"path": str(chat_model)}, data={"path": str(folder), "validation_size": 5})
    request = PrepareRequest(sweep=sweep, store=str(tmp_path / "store"))
    (tmp_path / "work").mkdir()
    prepare_stage(request, tmp_path / "work")
    manifest = read_manifest(open_store(request.store), request.layout.prepare)
    assert manifest is not None
    result = manifest.require_result(PrepareResult)
    assert {name: info.records for name, info in result.data.items()} == {"train": 15, "validation": 5, "test": 10}
    published = tmp_path / "store" / request.layout.prepare / "data"
    line = json.loads((published / "train.jsonl").read_text(encoding="utf-8").splitlines()[7])
    assert [line["text"][start:end] for start, end in line["counted"]] == ["1 ă<|im_end|>\n", "7<|im_end|>\n"]
    assert set(json.loads((published / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])) == {
        "question",
        "answer",
    }


def prepared(sweep: RecipeSweep, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    prepare_stage(PrepareRequest(sweep=sweep, store=str(tmp_path / "store")), work)


def test_arguments_of_a_template_that_is_not_used_are_refused(
    make_sweep: MakeSweep, chat_model: Path, tmp_path: Path
) -> None:
    data = {"chat_template_arguments": {"add_date": True}}
    with pytest.raises(ConfigError, match=r"data\.chat_template_arguments: .*neither training nor scoring"):
        prepared(make_sweep(model={"path": str(chat_model)}, data=data), tmp_path)
    with pytest.raises(ConfigError, match=r"data\.chat_template_arguments\.add_date: .*no variable of this name"):
        prepared(make_sweep(model={"path": str(chat_model)}, data=data, evaluation={"chat_template": True}), tmp_path)


def test_weights_are_refused_where_every_token_counts(make_sweep: MakeSweep, chat_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    first, answer, *rest = TALK["messages"]
    line = json.dumps({"messages": [first, answer | {"weight": 0}, *rest]})
    (folder / "train.jsonl").write_text("\n".join([line] * 9), encoding="utf-8")
    sweep = make_sweep(
        model={"path": str(chat_model)},
        data={"path": str(folder), "hold_out": {"validation": 2}},
        training={"loss_on": "all"},
        evaluation={"keep_from_task": ["data", "prompt"]},
    )
    with pytest.raises(ConfigError, match=r"data\.train:1: has a message of weight 0, but training\.loss_on is all"):
        prepared(sweep, tmp_path)


@pytest.mark.parametrize(("template", "warned"), [(CHATML, 0), (HEADED, 1), (BARE, 0)])
def test_a_template_without_a_generation_prompt_is_noted_where_scoring_renders_it(
    make_sweep: MakeSweep,
    chat_model: Path,
    special: PreTrainedTokenizerFast,
    tmp_path: Path,
    template: str,
    warned: int,
) -> None:
    special.chat_template = template
    special.save_pretrained(chat_model)
    sweep = make_sweep(model={"path": str(chat_model)}, evaluation={"chat_template": True})
    prepared(sweep, tmp_path)
    request = PrepareRequest(sweep=sweep, store=str(tmp_path / "store"))
    manifest = read_manifest(open_store(request.store), request.layout.prepare)
    assert manifest is not None
    warnings = manifest.require_result(PrepareResult).warnings
    assert sum("ignores add_generation_prompt" in warning for warning in warnings) == warned


def test_scoring_through_a_chat_template_needs_one(make_sweep: MakeSweep, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.chat_template: the model's tokenizer has no chat template"):
        prepared(make_sweep(evaluation={"chat_template": True}), tmp_path)


# <|im_start|>, "user" and a line break; <|im_end|> and a line break; <|im_start|>, "assistant" and a line break
@pytest.mark.parametrize(("task", "added"), [("ro_gsm8k", 6 + 2 + 11), ("word_problem_choice", 0)])
def test_prompts_are_measured_as_the_template_renders_them_unless_answers_are_chosen(
    make_sweep: MakeSweep, chat_model: Path, tmp_path: Path, task: str, added: int
) -> None:
    model = {"path": str(chat_model)}
    longest = {"model": model, "serving": {"max_model_len": 100}}
    needed = []
    for chat in (False, True):
        with pytest.raises(ConfigError, match="tokens together") as caught:
            prepared(make_sweep(**longest, evaluation={"chat_template": chat, "task": task}), tmp_path)
        needed.append(int(str(caught.value).partition("need ")[2].split()[0]))
    assert needed[1] - needed[0] == added


@pytest.mark.parametrize("evaluation", [{"num_fewshot": 1}, {"keep_from_task": ["num_fewshot"]}])
def test_solved_examples_from_conversations_are_refused(
    make_sweep: MakeSweep, chat_model: Path, tmp_path: Path, evaluation: dict[str, Any]
) -> None:
    sweep = make_sweep(model={"path": str(chat_model)}, data={"chat_template": True}, evaluation=evaluation)
    (field,) = evaluation
    with pytest.raises(ConfigError, match=rf"evaluation\.{field}: solved examples are taken from training records"):
        prepared(sweep, tmp_path)
