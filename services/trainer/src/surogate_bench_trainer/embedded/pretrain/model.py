"""The embedded model's architecture: a Qwen3 whose widths are multiples of 64."""

from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from surogate_bench_trainer.embedded.pretrain.tokenizer import MAX_LENGTH

_WIDTH_MULTIPLE = 64


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Initialize a float32 model of about 0.9 M parameters from torch's random state."""
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)
