"""A random model whose widths are multiples of 128, so that every storage format holds its weights."""

from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM


def save_wide_model(folder: Path, *, blocks: int = 2, vocabulary: int = 1024, initializer_range: float = 0.02) -> None:
    """Write a Qwen3 model, the same for the same arguments, without a tokenizer."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=384,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        initializer_range=initializer_range,
        tie_word_embeddings=False,
        eos_token_id=0,
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
