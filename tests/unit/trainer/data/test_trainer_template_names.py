"""Which names of a chat template are arguments that a sweep may give."""

import copy
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.data.chat.templates import chat_template_of
from surogate_bench_trainer.data.records import Message

GUARDED = (  # as many published templates
    "{% if not messages %}{{ raise_exception('No messages') }}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    "{{ date_string or strftime_now('%Y') }}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def guarded(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer whose template uses functions, a special token and an argument."""
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = GUARDED
    return changed


@pytest.mark.parametrize("name", ["raise_exception", "strftime_now", "eos_token"])
def test_functions_and_special_tokens_of_a_template_are_no_arguments(
    guarded: PreTrainedTokenizerFast, name: str
) -> None:
    message = rf"data\.chat_template_arguments\.{name}: .*function or special token.*: the template uses date_string\."
    with pytest.raises(ConfigError, match=message):
        chat_template_of(guarded, {name: "1"}, needed_by="data.train")


def test_functions_and_special_tokens_of_a_template_are_not_suggested(guarded: PreTrainedTokenizerFast) -> None:
    message = r"date_strng: .*no variable of this name.*: the template uses date_string\."
    with pytest.raises(ConfigError, match=message):
        chat_template_of(guarded, {"date_strng": "1"}, needed_by="data.train")


def test_any_other_variable_of_a_template_is_an_argument(guarded: PreTrainedTokenizerFast) -> None:
    arguments: dict[str, Any] = {"date_string": "2024"}
    template = chat_template_of(guarded, arguments, needed_by="data.train")
    assert template.prompt([Message("user", "x")]) == "user: x<|endoftext|>2024assistant: "
