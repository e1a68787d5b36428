"""Packed logits and gradients of every accepted architecture equal transformers' own on unpacked samples."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from surogate_bench.errors import PermanentError
from surogate_bench_trainer.data.batches import PackedBatch, collate
from surogate_bench_trainer.data.encoding import Sample
from surogate_bench_trainer.model.architectures import ARCHITECTURES, DENSE, MIXTURE_OF_EXPERTS
from surogate_bench_trainer.model.attention import layout as attention_layout
from surogate_bench_trainer.model.attention.packed import IMPLEMENTATION, segments_of
from surogate_bench_trainer.model.heads import kv_heads_of
from surogate_bench_trainer.model.lean_layers import make_lean

CPU = torch.device("cpu")
WINDOW = 8
LENGTHS = (45, 44, 20, 5)
"""Three samples longer than the window, two of them in one group."""

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024, "initializer_range": 0.2,
    "pad_token_id": 1, "eos_token_id": 0, "bos_token_id": 0, "attention_dropout": 0.0, "residual_dropout": 0.0,
    "sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
OTHER_SIZES: dict[str, dict[str, Any]] = {
    "gpt_neox": {"num_key_value_heads": None},
    "opt": {"num_key_value_heads": None, "ffn_dim": 96, "word_embed_proj_dim": 64, "dropout": 0.0, "init_std": 0.2},
}

ROPE = {"rope_theta": 1e4}

FEATURES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("mistral", {"sliding_window": WINDOW}, {"sliding_window": None}),
    ("phi3", {"sliding_window": WINDOW}, {"sliding_window": None}),
    ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}, {}),
    ("phi", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}},
     {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}}),
    ("gpt_neox", {"use_parallel_residual": False}, {"use_parallel_residual": True}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}, {"use_sliding_window": False}),
    ("qwen3", {"use_sliding_window": True, "max_window_layers": 2}, {"use_sliding_window": False}),
    ("gemma2", {"sliding_window": WINDOW}, {"sliding_window": 1024}),
    ("gemma2", {"attn_logit_softcapping": 1.0}, {"attn_logit_softcapping": None}),
    ("gemma2", {"query_pre_attn_scalar": 4}, {"query_pre_attn_scalar": 256}),
    ("gemma3_text", {"layer_types": ["sliding_attention", "full_attention"] * 2}, {"sliding_window": 1024}),
    ("gemma3_text", {"query_pre_attn_scalar": 4}, {"query_pre_attn_scalar": 256}),
    ("granite", {"attention_multiplier": 0.05}, {"attention_multiplier": 1.0}),
    ("cohere2", {"sliding_window": WINDOW}, {"sliding_window": 1024}),
    ("olmo3", {"sliding_window": WINDOW}, {"sliding_window": 1024}),
    ("smollm3", {"layer_types": ["sliding_attention"] * 4}, {"layer_types": ["full_attention"] * 4}),
    ("granite_swa", {"sliding_window": WINDOW}, {"sliding_window": 1024}),
    ("gpt_oss", {"sliding_window": WINDOW}, {"sliding_window": 1024}),
    *((each, {"sliding_window": WINDOW}, {"sliding_window": 1024})
      for each in ("cwm", "exaone4", "ministral", "ministral3", "mixtral", "qwen3_moe", "starcoder2", "vaultgemma")),
    ("vaultgemma", {"attn_logit_softcapping": 1.0}, {"attn_logit_softcapping": None}),
    *((each, {"attention_bias": True}, {"attention_bias": False})
      for each in ("apertus", "cohere", "gemma2", "gpt_oss", "llama", "olmo2", "qwen3")),
    ("seed_oss", {"attention_out_bias": True}, {"attention_out_bias": False}),
    ("cohere", {"use_qk_norm": True}, {"use_qk_norm": False}),
    ("phi", {"qk_layernorm": True}, {"qk_layernorm": False}),
    ("olmo", {"clip_qkv": 0.05}, {"clip_qkv": None}),
    ("smollm3", {"no_rope_layers": [1, 0, 1, 0]}, {"no_rope_layers": [1, 1, 1, 1]}),
    ("hyperclovax", {"attention_multiplier": 0.05}, {"attention_multiplier": 1.0}),
    ("vaultgemma", {"query_pre_attn_scalar": 4}, {"query_pre_attn_scalar": 256}),
    ("llama", {"rope_parameters": {**ROPE, "rope_type": "linear", "factor": 4.0}}, {}),
    ("llama", {"rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 4.0,
                                   "original_max_position_embeddings": 16}}, {}),
    ("llama", {"rope_parameters": {**ROPE, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                   "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}, {}),
    ("ministral3", {"rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 4.0, "llama_4_scaling_beta": 2.0,
                                        "original_max_position_embeddings": 16}},
     {"rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 4.0, "llama_4_scaling_beta": 0.0,
                          "original_max_position_embeddings": 16}}),
]  # fmt: skip
"""Architecture; a setting that switches an attention feature on; the setting (or default) without it."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they save at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(architecture: str, **changes: Any) -> PreTrainedModel:
    experts = EXPERTS if architecture in MIXTURE_OF_EXPERTS else {}
    config = CONFIG_MAPPING[architecture](**(SIZES | experts | OTHER_SIZES.get(architecture, {}) | changes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
        for name, parameter in model.named_parameters():
            if "sinks" in name:
                torch.nn.init.normal_(parameter, std=2.0)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.2)
    return model.train()


def samples() -> list[Sample]:
    rng = random.Random(0)
    return [Sample([rng.randrange(2, 320) for _ in range(length)], 1) for length in LENGTHS]


def unpacked_logits(model: PreTrainedModel) -> Tensor:
    """By transformers' eager attention, sample by sample."""
    model.set_attn_implementation("eager")
    return torch.cat([model(input_ids=torch.tensor([s.tokens]), use_cache=False).logits[0, :-1] for s in samples()])


def packed_logits(model: PreTrainedModel) -> Tensor:
    model.set_attn_implementation(IMPLEMENTATION)
    batch: PackedBatch = collate(samples(), "all", CPU)
    heads, kv_heads = model.config.num_attention_heads, kv_heads_of(model.config)
    logits: Tensor = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        logits_to_keep=batch.predicting,
        segments=segments_of(batch.lengths, heads=heads, kv_heads=kv_heads, device=CPU),
        use_cache=False,
    ).logits[0]
    return logits


def gradients(model: PreTrainedModel, logits: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    logits.square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_packed_equals_unpacked(model: PreTrainedModel) -> None:
    expected = unpacked_logits(model)
    expected_gradients = gradients(model, expected)
    actual = packed_logits(model)
    actual_gradients = gradients(model, actual)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-4)
    assert actual_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(actual_gradients[name], gradient, rtol=1e-2, atol=1e-3 * size + 1e-7, msg=name)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_packed_logits_and_gradients_of_an_accepted_architecture_are_transformers_own(architecture: str) -> None:
    assert_packed_equals_unpacked(tiny(architecture))


@pytest.mark.parametrize(("architecture", "on", "off"), FEATURES, ids=str)
@pytest.mark.parametrize("long", [attention_layout._LONG, 32], ids=["kept", "recomputed"])
def test_an_attention_feature_of_the_config_is_computed_in_packed_training(
    architecture: str, on: dict[str, Any], off: dict[str, Any], long: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_layout, "_LONG", long)
    model = tiny(architecture, **on)
    assert_packed_equals_unpacked(model)
    with torch.no_grad():
        without = unpacked_logits(tiny(architecture, **off))
        assert float((unpacked_logits(model) - without).abs().max()) > 1e-3  # the feature matters in this test


def test_sinks_change_the_logits() -> None:
    with torch.no_grad():
        model = tiny("gpt_oss")
        with_sinks = packed_logits(model)
        for name, parameter in model.named_parameters():
            if "sinks" in name:
                parameter.fill_(-1e4)
        assert float((packed_logits(model) - with_sinks).abs().max()) > 0.1


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_lean_layers_keep_sliding_windows(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(architecture)
    with torch.no_grad():
        expected = unpacked_logits(model)
        module = __import__(type(model).__module__, fromlist=["apply_rotary_pos_emb"])
        monkeypatch.setattr(module, "apply_rotary_pos_emb", module.apply_rotary_pos_emb)  # make_lean replaces it
        make_lean(model)
        torch.testing.assert_close(packed_logits(model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "changes", "refusal"),
    [
        ("llama", {"attention_dropout": 0.1}, "LlamaAttention: packed attention does not support dropout"),
        ("stablelm", {}, "StableLmAttention: packed attention needs the layout of the packed samples"),
        ("nemotron", {}, "NemotronAttention: packed attention needs the layout of the packed samples"),
        ("doge", {}, "DogeAttention: packed attention does not support attention_mask"),
    ],
)
def test_features_that_packed_attention_lacks_are_refused_by_name(
    architecture: str, changes: dict[str, Any], refusal: str
) -> None:
    assert architecture not in ARCHITECTURES or changes
    with pytest.raises(PermanentError, match=refusal):
        packed_logits(tiny(architecture, **changes))


@pytest.mark.parametrize("keyword", ["position_bias", "attention_chunk_size", "a_keyword_of_a_later_version"])
def test_a_keyword_that_packed_attention_does_not_know_is_refused(keyword: str) -> None:
    model = tiny("llama")
    model.set_attn_implementation(IMPLEMENTATION)
    batch = collate(samples(), "all", CPU)
    with pytest.raises(PermanentError, match=f"does not support {keyword}"):
        model(
            input_ids=batch.input_ids,
            segments=segments_of(batch.lengths, heads=4, kv_heads=2, device=CPU),
            use_cache=False,
            **{keyword: 3},
        )


def test_attention_that_is_not_causal_is_refused() -> None:
    model = tiny("llama")
    model.model.layers[1].self_attn.is_causal = False
    with pytest.raises(PermanentError, match="does not support is_causal=False"):
        packed_logits(model)


def test_every_accepted_architecture_is_known_to_transformers() -> None:
    assert set(CONFIG_MAPPING) >= ARCHITECTURES
    assert not DENSE & MIXTURE_OF_EXPERTS
