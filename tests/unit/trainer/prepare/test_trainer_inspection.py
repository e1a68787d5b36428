"""An inspection: what it shows of samples, prompts, lengths and steps is what the trainer and the server use."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sweeps import MakeSweep
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from surogate_bench.errors import ConfigError
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.inspection import Inspection, LengthBin
from surogate_bench.stages.requests import InspectRequest, PrepareRequest
from surogate_bench_trainer.data.batches import batches_of
from surogate_bench_trainer.data.encoding import Sample
from surogate_bench_trainer.data.records import read_prepared
from surogate_bench_trainer.prepare import inspect_stage, prepare_stage
from surogate_bench_trainer.prepare.inspection import lengths_of
from surogate_bench_trainer.prepare.shown import parts_of
from surogate_bench_trainer.training.setup import build_data


def inspect(sweep: RecipeSweep, tmp_path: Path) -> Inspection:
    work, output = tmp_path / "work", tmp_path / "inspection.json"
    work.mkdir(exist_ok=True)
    inspect_stage(InspectRequest(sweep=sweep, store=str(tmp_path / "store"), output=output), work)
    return Inspection.model_validate_json(output.read_bytes())


@pytest.mark.parametrize(
    "training",
    [
        {"packing": True},
        {"packing": False, "loss_on": "all"},
        {"epochs": 1.5, "gradient_accumulation_steps": 3},
        {"max_steps": 70, "micro_batch_size": 2},
    ],
)
def test_steps_and_tokens_are_those_of_the_training(
    make_sweep: MakeSweep, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, training: dict[str, Any]
) -> None:
    sweep = make_sweep(seeds=[0, 5], training=training)
    inspection = inspect(sweep, tmp_path)
    prepare_stage(PrepareRequest(sweep=sweep, store=str(tmp_path / "store")), tmp_path / "work")
    data = next((tmp_path / "store").rglob("prepare/data"))
    splits = {name: read_prepared(data / f"{name}.jsonl") for name in ("train", "validation")}
    for described in inspection.schedules:
        used = build_data(splits, tokenizer, sweep, seed=described.seed, device=torch.device("cpu"))
        assert described.steps == used.schedule.total_steps
        micro_batches = [each for step in range(described.steps) for each in used.schedule.micro_batches(step)]
        batches = batches_of(used.samples, micro_batches, sweep.training.loss_on, torch.device("cpu"))
        assert described.total.tokens == sum(batch.tokens for batch in batches)
        assert described.total.counted == sum(batch.counted for batch in batches)
        filled = [sum(len(used.samples[index].tokens) for index in row) / 512 for row in used.schedule.rows]
        assert described.row_fill == pytest.approx(sum(filled) / len(filled))
    assert inspection.epoch.tokens == sum(len(sample.tokens) for sample in used.samples)


def test_the_first_a_typical_and_the_longest_sample_are_shown_with_what_counts(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    answers = ["abc", "a", "abcdefghi", "ab", "abcd", "as long as"[:9]]
    train = [json.dumps({"question": "ș?", "answer": answer}) for answer in answers]
    test = [json.dumps({"question": "2 + 3?", "answer": "5\n#### 5"})] * 3
    for name, lines in (("train", train), ("validation", train[:1]), ("test", test)):
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    sweep = make_sweep(data={"path": str(folder), "validation_size": 1}, evaluation={"limit": 2})
    inspection = inspect(sweep, tmp_path)
    shown = {sample.chosen: sample for sample in inspection.samples}
    assert list(shown) == [("first", "typical"), ("longest",)]  # "abc" is both
    longest = shown["longest",]
    assert longest.record == 3
    assert [(part.text, part.counts) for part in longest.parts] == [
        ("Question: ș?\nAnswer:", False),
        (" abcdefghi<|endoftext|>", True),
    ]
    assert longest.counted == len(" abcdefghi") + 1
    assert longest.tokens == len("Question: ș?\nAnswer: abcdefghi".encode()) + 1
    (task,) = inspection.tasks
    assert (task.task, task.records, task.prompt) == ("ro_gsm8k", 2, "Question: 2 + 3?\nAnswer:")
    assert task.tokens == task.longest == len("Question: 2 + 3?\nAnswer:")


def test_a_character_of_several_tokens_is_shown_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer("aș b")["input_ids"]
    assert len(tokens) == 5
    parts = parts_of(Sample(tokens, 0, ((2, 4),)), tokenizer, "completion")  # from the second byte of ș to the blank
    assert [(part.text, part.counts) for part in parts] == [("a", False), ("ș ", True), ("b", False)]


def test_of_a_conversation_every_message_of_the_assistant_is_a_part(special: PreTrainedTokenizerFast) -> None:
    text = "<|user|>1?<|assistant|>1<|im_end|><|user|>2?<|assistant|>2<|im_end|>"
    tokens = special(text)["input_ids"]
    parts = parts_of(Sample(tokens, 4, ((4, 6), (10, 12))), special, "completion")
    assert [part.text for part in parts if part.counts] == ["1<|im_end|>", "2<|im_end|>"]
    assert "".join(part.text for part in parts) == text
    assert [part.counts for part in parts_of(Sample(tokens, 4, ((4, 6),)), special, "all")] == [False, True]


def test_tasks_whose_prompt_is_not_the_sweeps_say_why_it_is_not_shown(make_sweep: MakeSweep, tmp_path: Path) -> None:
    data = {"builtin": "word-problems-en", "test_size": 4}
    tasks = [
        {"name": "ro_gsm8k", "primary": True},
        {"name": "en_gsm8k", "data": data},
        {"name": "word_problem_choice", "data": data},
        {"name": "gsm8k"},
    ]
    primary, english, choice, own = inspect(make_sweep(evaluation={"tasks": tasks}), tmp_path).tasks
    assert primary.prompt is not None
    assert primary.notes == ()
    assert english.records == 4
    assert english.prompt == choice.prompt
    assert choice.notes == ("Each choice is appended to it, and none is generated.",)
    assert (own.prompt, own.records, own.tokens) == (None, None, None)
    assert "It scores data of its own" in own.notes[0]


def test_lengths_are_summarized_by_nearest_rank_and_counted_in_bins() -> None:
    lengths = lengths_of([*range(1, 101)], limit=512)
    assert (lengths.minimum, lengths.median, lengths.p95, lengths.maximum) == (1, 50, 95, 100)
    assert lengths.bins[0] == LengthBin(first=0, last=9, samples=9)
    assert lengths.bins[-1] == LengthBin(first=100, last=109, samples=1)
    assert sum(each.samples for each in lengths.bins) == 100
    assert lengths_of([7], limit=8).bins == (LengthBin(first=7, last=7, samples=1),)


def test_the_parameters_of_an_adapter_are_those_that_peft_adds(
    make_sweep: MakeSweep, make_model: Callable[..., Qwen3ForCausalLM], tmp_path: Path
) -> None:
    for targets in (["q_proj", "down_proj"], "all-linear"):
        lora = {"r": 4, "alpha": 8, "target_modules": targets}
        found = inspect(make_sweep(training={"lora": lora}), tmp_path).lora_parameters
        model = get_peft_model(make_model(), LoraConfig(r=4, target_modules=targets))
        assert found == model.get_nb_trainable_parameters()[0]


def test_nothing_is_stored(make_sweep: MakeSweep, tmp_path: Path) -> None:
    inspect(make_sweep(), tmp_path)
    assert not (tmp_path / "store").exists()
    (tmp_path / "store").mkdir()
    inspect(make_sweep(), tmp_path)
    assert not list((tmp_path / "store").iterdir())


def test_what_the_prepare_stage_refuses_is_refused_in_the_same_way(make_sweep: MakeSweep, tmp_path: Path) -> None:
    sweep = make_sweep(training={"max_length": 40})
    with pytest.raises(ConfigError) as of_prepare:
        prepare_stage(PrepareRequest(sweep=sweep, store=str(tmp_path / "store")), tmp_path)
    with pytest.raises(ConfigError) as of_inspection:
        inspect(sweep, tmp_path)
    assert str(of_inspection.value) == str(of_prepare.value)
    assert "samples are longer than training.max_length" in str(of_prepare.value)


def test_data_that_was_edited_after_it_was_prepared_is_refused(make_sweep: MakeSweep, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    source = make_sweep().data.path
    assert source is not None
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    sweep = make_sweep(data={"path": str(folder)})
    (tmp_path / "work").mkdir()
    prepare_stage(PrepareRequest(sweep=sweep, store=str(tmp_path / "store")), tmp_path / "work")
    inspect(sweep, tmp_path)
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "q", "answer": "a"}) + "\n")
    with pytest.raises(ConfigError, match=r"train\.jsonl"):
        inspect(sweep, tmp_path)
