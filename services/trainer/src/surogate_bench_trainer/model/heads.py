"""The attention heads of a model, by its configuration. Without torch, so that checks of a configuration start fast."""

from typing import Any


def kv_heads_of(config: Any) -> int:  # noqa: ANN401 - transformers is untyped
    """Return a model's key-value heads: as many as query heads where its configuration does not state them."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def head_size_of(config: Any) -> int:  # noqa: ANN401 - transformers is untyped
    """Return the values of a head: an equal share of the hidden size where the configuration does not state them."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
