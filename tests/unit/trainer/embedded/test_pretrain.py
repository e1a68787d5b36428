"""The embedded base model: what ships works, and the script that makes it does what it says."""

import json
import logging
import re
from collections.abc import Iterator
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.embedded.pretrain.__main__ import main
from surogate_bench_trainer.embedded.pretrain.evaluation import exact_match, greedy_answers
from surogate_bench_trainer.embedded.pretrain.optimization import lr_factor
from surogate_bench_trainer.embedded.pretrain.rows import IGNORED_LABEL, iter_batches, iter_texts, pack
from surogate_bench_trainer.embedded.pretrain.run import RECORD_FILE, pretrain
from surogate_bench_trainer.embedded.pretrain.settings import PretrainSettings
from surogate_bench_trainer.embedded.pretrain.tokenizer import END_OF_TEXT, MAX_LENGTH, PADDING
from surogate_bench_trainer.embedded.word_problems import prompt_text, split

TINY = PretrainSettings(steps=3, rows=2, row_length=128, warmup_steps=2, validation_size=2, threads=1)


@pytest.fixture(scope="module")
def shipped() -> Path:
    source = files("surogate_bench").joinpath("builtin_models", "tiny-qwen3-en")
    with as_file(source) as folder:
        return folder


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain") / "model"
    pretrain(folder, TINY)
    return folder


def test_the_shipped_model_answers_unseen_english_problems(shipped: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(shipped, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(shipped)
    assert exact_match(model, tokenizer, split("test", language="en", size=24), language="en") >= 0.9


def test_the_shipped_models_answer_ends_by_itself_in_gsm8k_format(shipped: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(shipped, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(shipped)
    question = "Anna has 3 boxes with 4 apples in each box. How many apples are there in total?"
    (answer,) = greedy_answers(model, tokenizer, [prompt_text(question, language="en")])
    assert answer == " In the boxes there are 3*4=12 apples.\n#### 12"


def test_the_shipped_models_record_meets_the_targets(shipped: Path) -> None:
    record = json.loads((shipped / RECORD_FILE).read_text(encoding="utf-8"))
    assert record["english_accuracy"] >= 0.97
    assert record["romanian_accuracy"] <= 0.05
    assert record["settings"] == {name: getattr(PretrainSettings(), name) for name in record["settings"]}


def test_the_shipped_model_is_a_small_qwen3_with_widths_in_multiples_of_64(shipped: Path) -> None:
    config = AutoConfig.from_pretrained(shipped)
    assert config.model_type == "qwen3"
    assert config.head_dim == 32
    assert config.max_position_embeddings == MAX_LENGTH
    assert config.tie_word_embeddings
    widths = (config.hidden_size, config.intermediate_size, config.vocab_size)
    assert all(width % 64 == 0 for width in widths)
    weights = load_file(shipped / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert sum(tensor.numel() for tensor in weights.values()) < 1_000_000


def test_the_shipped_tokenizer_splits_digits_and_restores_any_text(shipped: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shipped)
    assert tokenizer.tokenize("2026=1234") == ["2", "0", "2", "6", "=", "1", "2", "3", "4"]
    text = "Câți biscuiți au împreună cei doi? 12*7=84\n#### 84 – 蛇 🐍"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert (tokenizer.eos_token, tokenizer.pad_token) == (END_OF_TEXT, PADDING)
    assert tokenizer.model_max_length == MAX_LENGTH


def test_a_pretraining_run_leaves_a_model_that_loads(fresh: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(fresh)
    tokenizer = AutoTokenizer.from_pretrained(fresh)
    inputs = tokenizer("Question: How many?", return_tensors="pt", return_token_type_ids=False)
    logits = model(**inputs).logits
    assert logits.shape == (1, inputs["input_ids"].shape[1], model.config.vocab_size)
    assert logits.isfinite().all()
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_pretraining_run_records_how_it_was_made(fresh: Path) -> None:
    record = json.loads((fresh / RECORD_FILE).read_text(encoding="utf-8"))
    assert record["settings"]["steps"] == TINY.steps
    assert record["final_loss"] > 0
    assert record["torch_version"] == torch.__version__
    assert {"english_accuracy", "romanian_accuracy", "seconds", "tokens"} <= record.keys()


def test_the_same_settings_give_the_same_bytes(fresh: Path, tmp_path: Path) -> None:
    pretrain(tmp_path / "again", TINY)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (fresh / name).read_bytes()


def test_a_folder_with_something_in_it_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"--out: .*Name another"):
        pretrain(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def restored_logging() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
def test_the_command_line_reports_bad_input_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").touch()
    assert main(["--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path / "new"), "--steps", "0"])
    assert stopped.value.code == 2
    assert "0 is not a positive whole number" in capsys.readouterr().err


def test_the_model_never_reads_a_romanian_problem_nor_one_of_another_split() -> None:
    texts = list(islice(iter_texts(seed=0), 2000))
    assert not any(re.search("Întrebare|Răspuns|Câ[tț][ei]|împreună (cei|cele)", text) for text in texts)
    unseen = {prompt_text(p.question, language="en") for p in split("test", language="en", size=500)}
    seen = {text[: text.index("Answer:") + len("Answer:")] for text in texts if text.startswith("Question")}
    assert seen.isdisjoint(unseen)
    assert 0.75 < len(seen) / len(texts) < 0.85


def test_packing_keeps_every_text_whole_and_fills_the_rows() -> None:
    texts = [[index] * (1 + index % 37) for index in range(500)]
    rows = pack(texts, row_length=60)
    runs = sorted((value, row.count(value)) for row in rows for value in set(row))
    assert runs == sorted((text[0], len(text)) for text in texts)
    assert all(len(row) <= 60 for row in rows)
    assert sum(map(len, texts)) > 0.9 * 60 * len(rows)


def test_a_text_that_does_not_fit_into_a_row_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"row_length: .*got 4.*at least 5"):
        pack([[1], [1, 2, 3, 4, 5]], row_length=4)


def test_batches_have_the_requested_shape_and_no_labels_on_padding(fresh: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(fresh)
    inputs, labels = next(iter_batches(tokenizer, seed=0, rows=8, row_length=160))
    assert inputs.shape == labels.shape == (8, 160)
    padding = inputs == tokenizer.pad_token_id
    assert torch.equal(labels == IGNORED_LABEL, padding)
    assert torch.equal(labels[~padding], inputs[~padding])


def test_batches_larger_than_a_pool_of_texts_are_yielded(fresh: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(fresh)
    inputs, _ = next(iter_batches(tokenizer, seed=0, rows=900, row_length=128))
    assert inputs.shape == (900, 128)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    settings = PretrainSettings(steps=1000, warmup_steps=50, constant_until=0.4)
    factors = [lr_factor(step, settings) for step in range(1001)]
    assert factors[0] == pytest.approx(0.02)
    assert factors[50:400] == [1.0] * 350
    assert factors[700] == pytest.approx(0.5)
    assert factors[1000] == 0.0
    assert factors[400:] == sorted(factors[400:], reverse=True)
