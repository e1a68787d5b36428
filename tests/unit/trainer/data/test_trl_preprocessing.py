"""Token ids and counted tokens of each shape against those that TRL's SFTTrainer prepares from the same records."""

import copy
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from surogate_bench.inputs.reading.fields import Place
from surogate_bench.specs import DataSpec
from surogate_bench_trainer.data.encoding import Sample, encode
from surogate_bench_trainer.data.rendering import render
from surogate_bench_trainer.data.shapes import records_from

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

PLAIN = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content is string %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
)
CHATML = PLAIN + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
MARKED = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}"
    "{% if m.reasoning_content is string %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED = {"role": "user", "content": "2 + 3?\n\n"}
ANSWERED = {"role": "assistant", "content": "Cinci: 5 ă."}
TALK = [{"role": "system", "content": "Be brief."}, ASKED, ANSWERED, {"role": "user", "content": "1?"}, ANSWERED]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}]
THOUGHT = [ASKED, {"role": "assistant", "content": "5", "reasoning_content": "2, 3"}]


@pytest.fixture
def special(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """One token a byte, and those of the templates."""
    extended = copy.deepcopy(tokenizer)
    extended.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return extended


def prepared_by_trl(
    tokenizer: PreTrainedTokenizerFast, model: Path, row: dict[str, Any], folder: Path, **settings: Any
) -> tuple[list[int], list[bool]]:
    """Return token ids and whether each counts, as the trainer's data set has them."""
    config = trl.SFTConfig(
        output_dir=str(folder), max_steps=1, packing=False, report_to=[], use_cpu=True, bf16=False, **settings
    )
    data = datasets.Dataset.from_list([row])
    trainer = trl.SFTTrainer(model=str(model), args=config, train_dataset=data, processing_class=tokenizer)
    (found,) = list(trainer.train_dataset)
    return found["input_ids"], [label >= 0 for label in found["labels"]]


def prepared_here(tokenizer: PreTrainedTokenizerFast, row: dict[str, Any], **spec: Any) -> Sample:
    settings = DataSpec(path=Path("unused"), **spec)
    records = render(records_from([(row, Place("data.train:1"))], settings, None), tokenizer, settings, split="train")
    (sample,) = encode(records, tokenizer, settings)
    return sample


def counts(sample: Sample) -> list[bool]:
    """Return whether each token counts."""
    ranges = sample.counted or ((sample.prompt_length, len(sample.tokens)),)
    return [any(start <= index < end for start, end in ranges) for index in range(len(sample.tokens))]


@pytest.mark.parametrize(
    ("row", "theirs", "template", "settings", "spec"),
    [
        ({"text": "2 + 3 = 5 ă"}, None, None, {}, {}),
        ({"prompt": "2 + 3 =\n\n", "completion": " 5"}, None, None, {}, {}),
        (
            {"question": "2 + 3?", "answer": "5 ă\n#### 5"},
            {"prompt": "Question: 2 + 3?\nAnswer:", "completion": " 5 ă\n#### 5"},
            None,
            {},
            {},
        ),
        (
            {"instruction": "Add.", "input": "2 and 3", "output": "5"},
            {"prompt": "Add.\n\n2 and 3\n=>", "completion": "5"},
            None,
            {},
            {"prompt": "{question}\n=>", "completion": "{answer}"},
        ),
        (
            {"question": "2 + 3?", "answer": "5"},
            {"prompt": [{"role": "user", "content": "Q: 2 + 3?"}],
             "completion": [{"role": "assistant", "content": "5"}]},
            CHATML,
            {},
            {"chat_template": True, "prompt": "Q: {question}"},
        ),
        (
            {"messages": TALK},
            {"prompt": TALK[:-1], "completion": TALK[-1:]},
            CHATML,
            {},
            {"loss_on": "last"},
        ),
        ({"messages": TALK}, None, MARKED, {"assistant_only_loss": True}, {}),
        ({"messages": TALK, "tools": TOOLS}, None, MARKED, {"assistant_only_loss": True}, {}),
        ({"messages": THOUGHT}, None, MARKED, {"assistant_only_loss": True}, {}),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"},
                          {"role": "assistant", "content": "a"}]},
            MARKED,
            {"assistant_only_loss": True},
            {},
        ),
    ],
    ids=[
        "text", "prompt-completion", "question-answer", "instruction", "questions by a template", "last", "messages",
        "tools", "reasoning", "sharegpt",
    ],
)  # fmt: skip
def test_tokens_and_counted_tokens_are_those_of_trl(
    special: PreTrainedTokenizerFast,
    model_folder: Path,
    tmp_path: Path,
    row: dict[str, Any],
    theirs: dict[str, Any] | None,
    template: str | None,
    settings: dict[str, Any],
    spec: dict[str, Any],
) -> None:
    special.chat_template = template
    tokens, counted = prepared_by_trl(special, model_folder, theirs or row, tmp_path, **settings)
    sample = prepared_here(special, row, **spec)
    assert sample.tokens == tokens
    assert counts(sample) == counted


@pytest.mark.parametrize(
    ("template", "theirs", "spec"),
    [(MARKED, {"messages": TALK}, {}), (CHATML, {"prompt": TALK[:-1], "completion": TALK[-1:]}, {"loss_on": "last"})],
)
def test_conversations_are_those_of_trl_without_an_end_of_text_token_too(
    special: PreTrainedTokenizerFast,
    model_folder: Path,
    tmp_path: Path,
    template: str,
    theirs: dict[str, Any],
    spec: dict[str, Any],
) -> None:
    """Other shapes TRL refuses then: it appends the token to them."""
    special.eos_token, special.chat_template = None, template
    settings = {} if spec else {"assistant_only_loss": True}
    tokens, counted = prepared_by_trl(special, model_folder, theirs, tmp_path, **settings)
    sample = prepared_here(special, {"messages": TALK}, **spec)
    assert sample.tokens == tokens
    assert counts(sample) == counted


def test_the_header_that_a_template_has_only_in_the_whole_text_does_not_count(
    special: PreTrainedTokenizerFast, model_folder: Path, tmp_path: Path
) -> None:
    """TRL, whose prompt ends before it, counts it."""
    special.chat_template = PLAIN
    theirs = {"prompt": TALK[:-1], "completion": TALK[-1:]}
    tokens, counted = prepared_by_trl(special, model_folder, theirs, tmp_path)
    sample = prepared_here(special, {"messages": TALK}, loss_on="last")
    assert sample.tokens == tokens
    header = special("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    first = counted.index(True)
    assert tokens[first : first + len(header)] == header
    assert counts(sample) == [False] * (first + len(header)) + counted[first + len(header) :]


FAMILIES = ["gemma", "llama3", "phi3", "qwen2_5", "qwen3_instruct_2507"]


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_that_are_found_are_those_that_trls_version_of_a_template_marks(
    special: PreTrainedTokenizerFast, family: str
) -> None:
    """But for line breaks: that behind a message is counted here, that before one is marked in TRL's for Qwen2.5."""
    folder = Path(trl.__file__).parent / "chat_templates"
    special.add_special_tokens({"bos_token": "<|bos|>"})
    marked = special.apply_chat_template(
        TALK[1:],
        chat_template=(folder / f"{family}_training.jinja").read_text(encoding="utf-8"),
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    special.chat_template = (folder / f"{family}.jinja").read_text(encoding="utf-8")
    sample = prepared_here(special, {"messages": TALK[1:]})
    assert sample.tokens == marked["input_ids"]
    (line_break,) = special("\n", add_special_tokens=False)["input_ids"]
    ours, theirs = counts(sample), [bool(mark) for mark in marked["assistant_masks"]]
    breaks = {index for index, token in enumerate(sample.tokens) if token == line_break}
    ends = {index for index in breaks if index and ours[index - 1]}
    headers = {index for index in breaks if ours[index + 1 : index + 2] == [True] and not ours[index]}
    assert {index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair == (True, False)} <= ends
    assert {index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair == (False, True)} == (
        headers if family == "qwen2_5" else set()
    )
