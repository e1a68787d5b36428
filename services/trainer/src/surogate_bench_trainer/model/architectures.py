"""The model architectures that can be trained, by transformers' ``model_type``.

Samples are packed into one stream, so every layer must keep them apart and pass all that its attention needs to
:func:`surogate_bench_trainer.model.attention.packed_attention`. Not every architecture of transformers does: some
mix tokens outside attention (state-space and convolution layers), some hide a bias or a chunk in the attention mask,
and some do not pass keyword arguments on. So only those are accepted whose packed logits a test has found equal to
transformers' own on unpacked samples.
"""

DENSE = frozenset(
    {
        "apertus", "arcee", "cohere", "cohere2", "cwm", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm",
        "glm4", "granite", "granite_swa", "helium", "hunyuan_v1_dense", "hyperclovax", "jais2", "llama", "ministral",
        "ministral3", "mistral", "olmo", "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3",
        "starcoder2", "vaultgemma",
    }
)  # fmt: skip
"""One feed-forward network per block, of ``nn.Linear`` layers."""

MIXTURE_OF_EXPERTS = frozenset({"gpt_oss", "mixtral", "qwen3_moe"})
"""Experts in 3-D parameters, which only a recipe without quantization can leave as they are."""

ARCHITECTURES = DENSE | MIXTURE_OF_EXPERTS
"""All that can be trained."""
