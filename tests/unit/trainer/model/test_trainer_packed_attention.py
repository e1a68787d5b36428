"""Packed training equals training on each sample alone, and samples never see one another."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3ForCausalLM

from surogate_bench.errors import PermanentError
from surogate_bench_trainer.data.batches import PackedBatch, collate
from surogate_bench_trainer.data.encoding import Sample
from surogate_bench_trainer.model.attention import layout as attention_layout
from surogate_bench_trainer.model.attention.packed import IMPLEMENTATION, segments_of
from surogate_bench_trainer.model.lean_layers import make_lean
from surogate_bench_trainer.model.loss import cross_entropy

CPU = torch.device("cpu")


def samples(lengths: tuple[int, ...], seed: int = 0) -> list[Sample]:
    rng = random.Random(seed)
    return [Sample([rng.randrange(2, 320) for _ in range(length)], max(1, length // 2)) for length in lengths]


def packed_logits(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    model.set_attn_implementation(IMPLEMENTATION)
    config = model.config
    segments = segments_of(
        batch.lengths, heads=config.num_attention_heads, kv_heads=config.num_key_value_heads, device=CPU
    )
    output = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        logits_to_keep=batch.predicting,
        segments=segments,
        use_cache=False,
    )
    logits: Tensor = output.logits[0]
    return logits


def alone(model: PreTrainedModel, sample: Sample) -> Tensor:
    """Logits of one unpacked sample by transformers' own attention, at the positions that count."""
    model.set_attn_implementation("eager")
    logits: Tensor = model(input_ids=torch.tensor([sample.tokens]), use_cache=False).logits[0]
    return logits[sample.prompt_length - 1 : -1]


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 320}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(**(shape | heads | changes)))


@pytest.mark.parametrize("lengths", [(9,), (40, 33, 32, 31, 12, 5, 2), (16, 16, 16)])
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_packed_logits_and_gradients_equal_those_of_samples_alone(
    make_model: Callable[..., Qwen3ForCausalLM], architecture: str, lengths: tuple[int, ...]
) -> None:
    model = make_model() if architecture == "qwen3" else llama()
    batch_samples = samples(lengths)
    batch = collate(batch_samples, "completion", CPU)
    in_stream_order = sorted(batch_samples, key=lambda sample: -len(sample.tokens))
    expected = torch.cat([alone(model, sample) for sample in in_stream_order])
    expected_gradients = gradients(model, torch.nn.functional.cross_entropy(expected, batch.targets))

    actual = packed_logits(model, batch)
    actual_gradients = gradients(model, torch.nn.functional.cross_entropy(actual, batch.targets))

    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert actual_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(actual_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("group_scores", [1, 1 << 12, 1 << 30])
def test_how_samples_are_grouped_changes_nothing(
    make_model: Callable[..., Qwen3ForCausalLM], monkeypatch: pytest.MonkeyPatch, group_scores: int
) -> None:
    model = make_model()
    batch = collate(samples((50, 48, 30, 29, 8)), "all", CPU)
    usual = packed_logits(model, batch)
    monkeypatch.setattr(attention_layout, "_GROUP_SCORES", group_scores)
    torch.testing.assert_close(packed_logits(model, batch), usual, rtol=1e-5, atol=1e-5)


def test_long_samples_whose_scores_are_recomputed_give_the_same(
    make_model: Callable[..., Qwen3ForCausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    batch = collate(samples((70, 64, 20)), "all", CPU)
    kept = packed_logits(model, batch)
    kept_gradients = gradients(model, cross_entropy(kept, batch.targets, weight=0.1))
    monkeypatch.setattr(attention_layout, "_LONG", 64)
    recomputed = packed_logits(model, batch)
    torch.testing.assert_close(recomputed, kept, rtol=1e-5, atol=1e-5)
    recomputed_gradients = gradients(model, cross_entropy(recomputed, batch.targets, weight=0.1))
    for name, gradient in kept_gradients.items():
        torch.testing.assert_close(recomputed_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changing_one_sample_leaves_every_other_bit_identical(
    make_model: Callable[..., Qwen3ForCausalLM], dtype: torch.dtype
) -> None:
    model = make_model().to(dtype)
    make_lean(model)
    lengths = (40, 33, 32, 31, 12, 5)
    before, after = samples(lengths), samples(lengths)
    after[2] = samples(lengths, seed=9)[2]
    counted = [length - max(1, length // 2) for length in lengths]
    with torch.no_grad():
        logits = [
            torch.split(packed_logits(model, collate(batch, "completion", CPU)), counted) for batch in (before, after)
        ]
    assert [torch.equal(first, second) for first, second in zip(*logits, strict=True)] == [
        True, True, False, True, True, True,
    ]  # fmt: skip


def test_a_gradient_never_reaches_another_sample(make_model: Callable[..., Qwen3ForCausalLM]) -> None:
    model = make_model()
    batch = collate(samples((20, 12, 7)), "all", CPU)
    embedded = model.get_input_embeddings()(batch.input_ids).detach().requires_grad_()
    model.set_attn_implementation(IMPLEMENTATION)
    output = model(
        inputs_embeds=embedded,
        position_ids=batch.position_ids,
        segments=segments_of(batch.lengths, heads=4, kv_heads=2, device=CPU),
        use_cache=False,
    )
    output.logits[0, 20:32].sum().backward()  # the second sample
    assert embedded.grad is not None
    touched = embedded.grad[0].abs().sum(-1) > 0
    assert touched.tolist() == [False] * 20 + [True] * 12 + [False] * 7


def test_masks_and_dropout_are_refused(make_model: Callable[..., Qwen3ForCausalLM]) -> None:
    model = make_model(attention_dropout=0.5).train()
    with pytest.raises(PermanentError, match="does not support dropout"):
        packed_logits(model, collate(samples((8,)), "all", CPU))
