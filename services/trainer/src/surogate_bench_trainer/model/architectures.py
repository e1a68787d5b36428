"""The model architectures that can be trained, by transformers' ``model_type``.

Samples are packed into one stream, so every layer must keep them separate and pass everything its attention needs to
:func:`surogate_bench_trainer.model.attention.packed.packed_attention`. Not every architecture of transformers does
that: some mix tokens outside attention (state-space and convolution layers), some encode a bias or a chunk in the
attention mask, and some do not forward keyword arguments. Therefore an architecture is accepted only if a test has
found its packed logits equal to those of transformers on unpacked samples.
"""

from collections.abc import Mapping

DENSE = frozenset(
    {
        "apertus", "arcee", "cohere", "cohere2", "cwm", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm",
        "glm4", "gpt_neox", "granite", "granite_swa", "helium", "hunyuan_v1_dense", "hyperclovax",
        "jais2", "llama", "ministral", "ministral3", "mistral", "olmo", "olmo2", "olmo3", "opt", "phi", "phi3",
        "qwen2", "qwen3", "seed_oss", "smollm3", "starcoder2", "vaultgemma",
    }
)  # fmt: skip
"""One feed-forward network of ``nn.Linear`` layers per block."""

MIXTURE_OF_EXPERTS = frozenset({"gpt_oss", "mixtral", "qwen3_moe"})
"""Experts are 3-D parameters, which no recipe quantizes; only recipes without quantization support them."""

ARCHITECTURES = DENSE | MIXTURE_OF_EXPERTS
"""All supported architectures."""

_NO_ADAPTERS = "vLLM serves no LoRA adapters of this architecture, so what is trained could not be scored"
_NOT_ATTENTION = "its layers mix tokens outside attention, so samples of a packed stream would not stay separate"
_NOT_LINEAR = "its blocks have Conv1D layers in the place of linear ones, which no recipe covers"

REASONS: Mapping[str, str] = {
    **dict.fromkeys(
        ("bloom", "cohere2_moe", "dbrx", "falcon", "gemma3n_text", "gptj", "stablelm"), _NO_ADAPTERS
    ),
    **dict.fromkeys(
        (
            "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2", "lfm2_moe", "mamba", "mamba2",
            "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next",
            "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2",
        ),
        _NOT_ATTENTION,
    ),
    **dict.fromkeys(("gpt-sw3", "gpt2", "openai-gpt"), _NOT_LINEAR),
    "mpt": "it encodes positions as biases of attention (ALiBi), which packed attention does not compute",
}  # fmt: skip
"""Why a popular architecture is not supported."""

UNVERIFIED = "its packed training has not been verified against transformers"
"""The reason for all other architectures."""
