"""Conversations and texts as samples: tokens, and which of them count, against expectations that are written out."""

from pathlib import Path
from typing import Any

import pytest
from models.chat_templates import ALTERNATING, BARE, CHATML, ENDED, EQUIPPED, HEADED, MARKED, TALK, THINKING
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.reading.fields import Place
from surogate_bench.specs import DataSpec
from surogate_bench_trainer.data.chat.templates import ChatTemplate
from surogate_bench_trainer.data.encoding import Sample, encode, end_of_text
from surogate_bench_trainer.data.records import read_prepared, write_records
from surogate_bench_trainer.data.rendering import render
from surogate_bench_trainer.data.shapes import records_from

START = (
    "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n1 ă<|im_end|>\n"
    "<|im_start|>user\ntwo<|im_end|>\n<|im_start|>"
)
"""The conversation below in ChatML, up to its last message."""


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


@pytest.mark.parametrize(
    ("row", "text", "part"),
    [
        ({"prompt": "p\n", "completion": " c"}, "p\n c", " c"),
        ({"text": "whole ă"}, "whole ă", "hole ă"),
        ({"instruction": "i", "input": "x", "output": "o"}, "Question: i\n\nx\nAnswer: o", " o"),
    ],
)
def test_without_an_end_of_text_token_texts_end_where_they_end(
    special: PreTrainedTokenizerFast, row: dict[str, Any], text: str, part: str
) -> None:
    special.eos_token = None
    assert end_of_text(special) == ""
    sample = sample_of(special, row)
    assert sample.tokens == special(text, add_special_tokens=False)["input_ids"]
    assert counted(special, sample) == [part]


@pytest.mark.parametrize(
    ("template", "end"), [(CHATML, "<|im_end|>"), (MARKED, "<|im_end|>"), (ENDED, "<|im_end|>"), (BARE, "")]
)
def test_the_first_token_behind_an_answer_is_the_end_of_the_message(
    special: PreTrainedTokenizerFast, template: str, end: str
) -> None:
    special.chat_template = template
    assert special.decode(ChatTemplate(special, {}).end_of_answer()[:1]) == end


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
            {"rag": CHATML, "tool_use": CHATML},
            {},
            r"data\.train: the model's chat template cannot be used: .*no default.*with the name default",
        ),
        (
            TALK,
            THINKING,
            {"chat_template_arguments": {"enable_thinkng": False}},
            r"data\.chat_template_arguments\.enable_thinkng: .*no variable of this name.*uses enable_thinking\.",
        ),
    ],
)
def test_a_template_that_is_missing_or_fails_is_named(
    special: PreTrainedTokenizerFast,
    row: dict[str, Any],
    template: str | dict[str, str] | None,
    settings: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        sample_of(special, row, template, **settings)
