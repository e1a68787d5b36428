"""Conversations and texts as samples: tokens, and which of them count, against expectations that are written out."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from sweeps import MakeSweep
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from surogate_bench.errors import ConfigError
from surogate_bench.requests import PrepareRequest
from surogate_bench.results import PrepareResult
from surogate_bench.specs import DataSpec, RecipeSweep
from surogate_bench.stages import read_manifest
from surogate_bench.store import open_store
from surogate_bench_trainer.data.encoding import Sample, encode
from surogate_bench_trainer.data.fields import Place
from surogate_bench_trainer.data.records import read_prepared, write_records
from surogate_bench_trainer.data.rendering import render
from surogate_bench_trainer.data.shapes import records_from
from surogate_bench_trainer.prepare import prepare_stage

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (  # as Qwen3's: only the last answer has a thinking block, and an argument puts an empty one into the prompt
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ENDED = (  # as Phi-3's: a conversation ends with a token that shares its beginning with that of a message
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
BARE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
HEADED = (  # it has no generation prompt
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
EQUIPPED = (  # as Qwen3's: tools in front, and the last answer with its reasoning
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content is defined %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m.content }}{% endfor %}"
)

START = (
    "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n1 ă<|im_end|>\n"
    "<|im_start|>user\ntwo<|im_end|>\n<|im_start|>"
)
"""The conversation below in ChatML, up to its last message."""
TALK = {
    "messages": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1 ă"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2"},
    ]
}


@pytest.fixture
def special(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """One token a byte, and those of the templates."""
    extended = copy.deepcopy(tokenizer)
    extended.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>"]}
    )
    return extended


def sample_of(
    tokenizer: PreTrainedTokenizerFast, row: dict[str, Any], template: str | dict[str, str] | None = None, **spec: Any
) -> Sample:
    tokenizer.chat_template = template
    settings = DataSpec(path=Path("unused"), **spec)
    (sample,) = encode(
        render(records_from([(row, Place("data.train:1"))], settings, None), tokenizer, settings, split="train"),
        tokenizer,
        settings,
    )
    return sample


def counted(tokenizer: PreTrainedTokenizerFast, sample: Sample) -> list[str]:
    return [tokenizer.decode(sample.tokens[start:end]) for start, end in sample.ranges("completion")]


@pytest.mark.parametrize(
    ("template", "settings", "text", "parts"),
    [
        (CHATML, {}, f"{START}assistant\n2<|im_end|>\n", ["1 ă<|im_end|>\n", "2<|im_end|>\n"]),
        (CHATML, {"loss_on": "last"}, None, ["2<|im_end|>\n"]),
        (MARKED, {}, None, ["1 ă<|im_end|>", "2<|im_end|>"]),
        (MARKED, {"loss_on": "last"}, None, ["2<|im_end|>"]),
        (
            THINKING,
            {},
            f"{START}assistant\n<think>\n\n</think>\n\n2<|im_end|>\n",
            ["1 ă<|im_end|>\n", "<think>\n\n</think>\n\n2<|im_end|>\n"],
        ),
        (THINKING, {"loss_on": "last", "chat_template_arguments": {"enable_thinking": False}}, None, ["2<|im_end|>\n"]),
        (
            ENDED,
            {},
            "<|user|>\none<|im_end|>\n<|assistant|>\n1 ă<|im_end|>\n<|user|>\ntwo<|im_end|>\n"
            "<|assistant|>\n2<|im_end|>\n<|endoftext|>",
            ["1 ă<|im_end|>\n", "2<|im_end|>\n<|endoftext|>"],
        ),
        (BARE, {}, "[user]one[assistant]1 ă[user]two[assistant]2", ["1 ă", "2"]),
        (HEADED, {}, f"{START}assistant\n2<|im_end|>\n", ["1 ă<|im_end|>\n", "2<|im_end|>\n"]),
        (HEADED, {"loss_on": "last"}, None, ["2<|im_end|>\n"]),
    ],
)
def test_the_assistants_messages_count_with_the_markers_of_their_ends(
    special: PreTrainedTokenizerFast, template: str, settings: dict[str, Any], text: str | None, parts: list[str]
) -> None:
    sample = sample_of(special, TALK, template, **settings)
    assert counted(special, sample) == parts
    if text is not None:
        assert sample.tokens == special(text, add_special_tokens=False)["input_ids"]
    assert sample.ranges("all") == ((1, len(sample.tokens)),)


@pytest.mark.parametrize(("template", "part"), [(CHATML, "2<|im_end|>\n"), (MARKED, "2<|im_end|>")])
def test_a_message_of_weight_0_does_not_count(special: PreTrainedTokenizerFast, template: str, part: str) -> None:
    first, answer, *rest = TALK["messages"]
    row = {"messages": [first, answer | {"weight": 0}, *rest]}
    sample = sample_of(special, row, template)
    assert sample.tokens == sample_of(special, TALK, template).tokens
    assert counted(special, sample) == [part]


def test_tools_and_reasoning_are_handed_to_the_template(special: PreTrainedTokenizerFast) -> None:
    row = {
        "messages": [*TALK["messages"][:3], {"role": "assistant", "content": "2", "reasoning_content": "1 + 1"}],
        "tools": [{"name": "f", "least": 0}],
    }
    sample = sample_of(special, row, EQUIPPED)
    shown = special.decode(sample.tokens)
    assert shown == f'tools: [{{"name": "f", "least": 0}}]\n{START}assistant\n<think>1 + 1</think>2<|im_end|>\n'
    assert counted(special, sample) == ["1 ă<|im_end|>\n", "<think>1 + 1</think>2<|im_end|>\n"]


def test_a_template_for_tools_of_its_own_is_used_where_there_are_tools(special: PreTrainedTokenizerFast) -> None:
    templates = {"default": CHATML, "tool_use": EQUIPPED}
    sample = sample_of(special, TALK | {"tools": [{"name": "f"}]}, templates)
    assert special.decode(sample.tokens) == f'tools: [{{"name": "f"}}]\n{START}assistant\n2<|im_end|>\n'
    assert sample_of(special, TALK, templates).tokens == sample_of(special, TALK, CHATML).tokens


def test_an_assistant_that_speaks_first_counts_from_its_text_on(special: PreTrainedTokenizerFast) -> None:
    row = {"messages": [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "x"}]}
    assert counted(special, sample_of(special, row, CHATML)) == ["hi<|im_end|>\n"]


@pytest.mark.parametrize(
    ("row", "text", "part"),
    [
        ({"prompt": "p\n", "completion": " c"}, "p\n c<|endoftext|>", " c<|endoftext|>"),
        ({"prompt": "p\n", "completion": "c<|endoftext|>"}, "p\nc<|endoftext|>", "c<|endoftext|>"),
        ({"text": "whole ă"}, "whole ă<|endoftext|>", "hole ă<|endoftext|>"),
        (
            {"instruction": "i", "input": "x", "output": "o"},
            "Question: i\n\nx\nAnswer: o<|endoftext|>",
            " o<|endoftext|>",
        ),
    ],
)
def test_texts_end_with_the_end_of_text_token_once(
    special: PreTrainedTokenizerFast, row: dict[str, Any], text: str, part: str
) -> None:
    sample = sample_of(special, row)
    assert sample.tokens == special(text, add_special_tokens=False)["input_ids"]
    assert counted(special, sample) == [part]


def test_the_end_of_a_prompt_counts_where_the_prompt_alone_has_other_tokens() -> None:
    """Two line breaks are one token at the end of a text, and two tokens before a letter (as in GPT-2's tokenizer)."""
    vocabulary = {token: number for number, token in enumerate(("<|endoftext|>", "p", "c", "Ċ", "ĊĊ"))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    merging = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    assert merging("p\n\n")["input_ids"] == [1, 4]
    sample = sample_of(merging, {"prompt": "p\n\n", "completion": "c"})
    assert sample.tokens == [1, 3, 3, 2, 0]
    assert sample.ranges("completion") == ((1, 5),)


def test_questions_and_answers_may_be_rendered_as_messages(special: PreTrainedTokenizerFast) -> None:
    row = {"question": "q", "answer": "a"}
    sample = sample_of(special, row, CHATML, chat_template=True, prompt="{question}\n", completion=" {answer}")
    assert special.decode(sample.tokens) == "<|im_start|>user\nq\n<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    assert counted(special, sample) == ["a<|im_end|>\n"]


def test_prepared_samples_are_read_as_they_were_written(special: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    special.chat_template = CHATML
    spec = DataSpec(path=tmp_path)
    rendered = render(records_from([(TALK, Place("x"))], spec, None), special, spec, split="train")
    write_records(tmp_path / "train.jsonl", rendered)
    assert read_prepared(tmp_path / "train.jsonl") == rendered


@pytest.mark.parametrize(
    ("row", "template", "settings", "message"),
    [
        (TALK, None, {}, r"data\.train: the model's tokenizer has no chat template.*instruct model"),
        ({"question": "q", "answer": "a"}, None, {"chat_template": True}, r"data\.chat_template: .*no chat template"),
        ({"text": "t"}, CHATML, {"chat_template": True}, r"data\.chat_template: a text has no questions"),
        (
            {"messages": [{"role": "system", "content": "be brief"}, *TALK["messages"]]},
            ALTERNATING,
            {},
            r"data\.train:1: the model's chat template fails on a conversation of system, user, .*System role not "
            r"supported.*got 'be brief'.*order are the template's",
        ),
        (
            TALK,
            "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}",
            {},
            r"data\.train:1: .*not clear which.*loss_on: last",
        ),
        (
            {"messages": [TALK["messages"][0], TALK["messages"][1] | {"weight": 0}, *TALK["messages"][2:]]},
            MARKED.replace("<|im_end|>{% endg", "{% endgeneration %}{% generation %}<|im_end|>{% endg"),  # two each
            {},
            r"data\.train:1: .*not clear which",
        ),
        (TALK, "{{ messages[0].nothing.more }}", {}, r"data\.train:1: the model's chat template fails"),
        (TALK | {"tools": [{"name": "f"}]}, CHATML, {}, r"data\.train:1: .*does not use the tools of this record"),
        (
            {"messages": [TALK["messages"][0], {"role": "assistant", "content": "1", "thinking": "x"}]},
            CHATML,
            {},
            r"data\.train:1: .*does not use the thinking of message 2 of this record",
        ),
        (
            {"messages": [TALK["messages"][0], {"role": "assistant", "content": "1", "reasoning": "x"}]},
            f"You do reasoning.{EQUIPPED}",
            {},
            r"data\.train:1: .*does not use the reasoning of message 2 of this record",
        ),
        (
            {"messages": [TALK["messages"][0], {"role": "assistant", "content": "1", "reasoning_content": "x"}]},
            EQUIPPED.partition("{% if add_gen")[0],
            {},
            r"data\.train:1: .*not clear which",
        ),
        (TALK, "{% for m in messages %}", {}, r"data\.train: the model's chat template is not valid: .*line 1"),
        (
            TALK,
            THINKING,
            {"chat_template_arguments": {"enable_thinkng": False}},
            r"data\.chat_template_arguments\.enable_thinkng: .*no variable of this name.*uses enable_thinking\.",
        ),
    ],
)
def test_a_template_that_is_missing_or_fails_is_named(
    special: PreTrainedTokenizerFast, row: dict[str, Any], template: str | None, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sample_of(special, row, template, **settings)


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
