"""The model architectures that can be trained, by transformers' ``model_type``.

Samples are packed into one stream, so every layer must keep them separate and pass everything its attention needs to
:func:`surogate_bench_trainer.model.attention.packed_attention`. Not every architecture of transformers does that: some
mix tokens outside attention (state-space and convolution layers), some encode a bias or a chunk in the attention mask,
and some do not forward keyword arguments. Therefore an architecture is accepted only if a test has found its packed
logits equal to those of transformers on unpacked samples.
"""

DENSE = frozenset(
    {
        "apertus", "arcee", "cohere", "cohere2", "cwm", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm",
        "glm4", "granite", "granite_swa", "helium", "hunyuan_v1_dense", "hyperclovax", "jais2", "llama", "ministral",
        "ministral3", "mistral", "olmo", "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3",
        "starcoder2", "vaultgemma",
    }
)  # fmt: skip
"""One feed-forward network of ``nn.Linear`` layers per block."""

MIXTURE_OF_EXPERTS = frozenset({"gpt_oss", "mixtral", "qwen3_moe"})
"""Experts are 3-D parameters, which no recipe quantizes; only recipes without quantization support them."""

ARCHITECTURES = DENSE | MIXTURE_OF_EXPERTS
"""All supported architectures."""
