"""Records as tokens, tokens as batches."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from surogate_bench.specs import DataSpec
from surogate_bench_trainer.data.batches import collate
from surogate_bench_trainer.data.encoding import Sample, encode
from surogate_bench_trainer.data.records import Record

CPU = torch.device("cpu")
SPEC = DataSpec(path=Path("unused"))
SAMPLES = [Sample([10, 11, 12, 0], 2), Sample([20, 21, 22, 23, 24, 0], 4)]


def test_a_sample_is_prompt_completion_and_end_of_text(tokenizer: PreTrainedTokenizerFast) -> None:
    (sample,) = encode([Record("How many?", "Two {braces}.\n#### 2")], tokenizer, SPEC)
    prompt = "Question: How many?\nAnswer:"
    assert tokenizer.decode(sample.tokens[:-1]) == f"{prompt} Two {{braces}}.\n#### 2"
    assert tokenizer.decode(sample.tokens[: sample.prompt_length]) == prompt
    assert sample.tokens[-1] == tokenizer.eos_token_id


def test_positions_restart_in_every_sample_of_a_stream_without_padding() -> None:
    batch = collate(SAMPLES, "all", CPU)
    assert batch.input_ids.tolist() == [[20, 21, 22, 23, 24, 0, 10, 11, 12, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3]]
    assert batch.lengths == (6, 4)
    assert batch.tokens == 10


def test_loss_on_completion_counts_the_answer_and_end_of_text_only() -> None:
    batch = collate(SAMPLES, "completion", CPU)
    assert batch.targets.tolist() == [24, 0, 12, 0]
    assert batch.predicting.tolist() == [3, 4, 7, 8]


def test_loss_on_all_counts_every_token_that_has_one_before_it() -> None:
    batch = collate(SAMPLES, "all", CPU)
    assert batch.targets.tolist() == [21, 22, 23, 24, 0, 11, 12, 0]
    assert batch.predicting.tolist() == [0, 1, 2, 3, 4, 6, 7, 8]


def test_every_target_is_the_token_after_its_predicting_position() -> None:
    for loss_on in ("completion", "all"):
        batch = collate(SAMPLES, loss_on, CPU)
        assert torch.equal(batch.input_ids[0, batch.predicting + 1], batch.targets)


def test_several_counted_parts_of_a_sample_count_and_nothing_between_them() -> None:
    sample = Sample([5, 6, 7, 8, 9, 4], 1, ((1, 3), (4, 6)))
    batch = collate([SAMPLES[1], sample], "completion", CPU)
    start = len(SAMPLES[1].tokens) if batch.lengths[0] == len(SAMPLES[1].tokens) else 0
    assert batch.targets.tolist() == [24, 0, 6, 7, 9, 4]
    assert batch.predicting.tolist() == [3, 4, start, start + 1, start + 3, start + 4]
    assert batch.input_ids[0, batch.predicting + 1].tolist() == batch.targets.tolist()
    assert collate([sample], "all", CPU).targets.tolist() == [6, 7, 8, 9, 4]
