"""A toy model and tokenizer (bytes as tokens), and sweeps that use them."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models.foreign_adapters import NAME, Import, import_into, make_adapter
from sweeps import MakeSweep, changed, small_document
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from surogate_bench.results import ImportResult
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products
from surogate_bench_trainer.embedded.word_problems import split

SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
    "eos_token_id": 0,
    "pad_token_id": 1,
}


def toy_model(**changes: Any) -> Qwen3ForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen3ForCausalLM(Qwen3Config(**(SHAPE | changes)))


@pytest.fixture(scope="session", autouse=True)
def as_in_training() -> None:
    """Multiply as a trainer does on this CPU."""
    ensure_fast_bf16_products()


@pytest.fixture
def make_model() -> Callable[..., Qwen3ForCausalLM]:
    """Build the same fp32 model every time; keyword arguments change its configuration."""
    return toy_model


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    vocabulary = {"<|endoftext|>": 0, "<|pad|>": 1}
    for character in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[character] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|pad|>")


@pytest.fixture
def special(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """One token a byte, and those of the templates."""
    extended = copy.deepcopy(tokenizer)
    extended.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>"]}
    )
    return extended


@pytest.fixture(scope="session")
def model_folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy model on disk, in bf16."""
    folder = tmp_path_factory.mktemp("models") / "toy-qwen3"
    toy_model().to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Word problems as JSONL: 60 to train on, 10 to validate, 10 to test."""
    folder = tmp_path_factory.mktemp("data")
    for name, size in (("train", 60), ("validation", 10), ("test", 10)):
        problems = split(name, language="en", size=size)
        lines = [json.dumps({"question": problem.question, "answer": problem.answer}) for problem in problems]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_sweep(model_folder: Path, data_folder: Path) -> MakeSweep:
    """Make a sweep on the toy model; keyword arguments change its sections."""
    document = small_document(
        name="toy",
        model={"path": str(model_folder)},
        data={"path": str(data_folder), "validation_size": 10, "train_size": None, "test_size": None},
        training={
            "max_steps": 6,
            "max_length": 512,
            "micro_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-2,
            "warmup_steps": 2,
            "lora": {"r": 4, "alpha": 8},
            "eval_steps": 2,
            "checkpoint_steps": 2,
        },
        recipes=["bf16", "fp8", "fp4"],
        serving={"max_model_len": 1024},
        evaluation={"max_gen_toks": 64},
    )
    return lambda **changes: parse_sweep(changed(document, changes))


@pytest.fixture(scope="module")
def restored_threads() -> Iterator[None]:
    """Restore the number of CPU threads that a trainer in this process sets."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def adapter(model_folder: Path, tmp_path: Path) -> Path:
    return make_adapter(model_folder, tmp_path / "adapter")


@pytest.fixture
def imported(make_sweep: MakeSweep, tmp_path: Path) -> Import:
    """Import an adapter from a folder; gives the result and the folder of the imported files."""

    def run(folder: Path, **changes: Any) -> tuple[ImportResult, Path]:
        source = {"path": str(folder)}
        sweep = make_sweep(recipes=["bf16"], adapters=[{"name": NAME, **source, **changes.pop("entry", {})}], **changes)
        return import_into(tmp_path, sweep)

    return run
