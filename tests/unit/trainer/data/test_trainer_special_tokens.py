"""Whether a prompt begins with a special token follows the tokenizer, in training and in scoring alike."""

from pathlib import Path

import pytest
from sweeps import MakeSweep
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from surogate_bench.results import PrepareResult
from surogate_bench.specs.data import DataSpec
from surogate_bench.stages.prepared import special_tokens
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.data.encoding import encode, special_tokens_of
from surogate_bench_trainer.data.records import Record
from surogate_bench_trainer.prepare import prepare_stage

SPEC = DataSpec(hub="a/b", prompt="Question: {question}\nAnswer:")
RECORD = Record("How many?", "Two.\n#### 2")
PROMPT = "Question: How many?\nAnswer:"


@pytest.fixture
def with_beginning(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> PreTrainedTokenizerFast:
    """The toy tokenizer, which puts a token in front of each text as those of Llama, Gemma and Mistral do."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    copy: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    copy.add_special_tokens({"bos_token": "<s>"})
    copy.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", copy.convert_tokens_to_ids("<s>"))]
    )
    return copy


def as_vllm_does(tokenizer: PreTrainedTokenizerFast, prompt: str, *, special_tokens: bool = True) -> list[int]:
    """Tokens of a text prompt: ``encode``, with vLLM's default (``vllm.renderers.params.TokenizeParams``)."""
    ids: list[int] = tokenizer.encode(prompt, add_special_tokens=special_tokens)
    return ids


def test_a_trained_prompt_has_the_tokens_that_vllm_makes_of_its_text(
    tokenizer: PreTrainedTokenizerFast, with_beginning: PreTrainedTokenizerFast
) -> None:
    for each, added in ((tokenizer, ()), (with_beginning, ("<s>",))):
        assert special_tokens_of(each) == added
        (sample,) = encode([RECORD], each, SPEC)
        prompt = sample.tokens[: sample.prompt_length]
        assert prompt == as_vllm_does(each, PROMPT)
        assert prompt[: len(added)] == each.convert_tokens_to_ids(list(added))
        completion = sample.tokens[sample.prompt_length :]
        assert completion == [*as_vllm_does(each, " Two.\n#### 2", special_tokens=False), each.eos_token_id]


def test_data_prepared_by_an_earlier_version_gets_no_special_tokens(
    with_beginning: PreTrainedTokenizerFast,
) -> None:
    (sample,) = encode([RECORD], with_beginning, SPEC, special_tokens=False)
    assert sample.tokens[: sample.prompt_length] == as_vllm_does(with_beginning, PROMPT, special_tokens=False)


def test_the_tokens_that_a_tokenizer_adds_are_recorded_for_later_stages(
    with_beginning: PreTrainedTokenizerFast, model_folder: Path, make_sweep: MakeSweep, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with_beginning.save_pretrained(folder)
    for model, added in ((model_folder, ()), (folder, ("<s>",))):
        request = PrepareRequest(sweep=make_sweep(model={"path": str(model)}), store=str(tmp_path / "store"))
        work_dir = tmp_path / "work" / model.name
        work_dir.mkdir(parents=True)
        prepare_stage(request, work_dir)
        store = open_store(request.store)
        assert special_tokens(store, request.layout) == added
        manifest = read_manifest(store, request.layout.prepare)
        assert manifest is not None
        assert manifest.require_result(PrepareResult).special_tokens == added
