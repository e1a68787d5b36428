"""Check of a tokenizer against the model's embedding."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from surogate_bench.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_vocabulary(tokenizer: "PreTrainedTokenizerBase", rows: int, used: Iterable[int]) -> tuple[str, ...]:
    """Check that every token that can occur has a row of the embedding.

    Args:
        tokenizer: The model's tokenizer.
        rows: Rows of the embedding, the configuration's ``vocab_size``.
        used: Tokens of the data.

    Returns:
        Warnings about special tokens without a row, which no text is tokenized to.

    Raises:
        ConfigError: other tokens have no row.
    """
    beyond = {identifier for identifier in tokenizer.get_vocab().values() if identifier >= rows}
    if not beyond:
        return ()
    special = {identifier for identifier, token in tokenizer.added_tokens_decoder.items() if token.special}
    harmful = sorted((beyond - special) | (beyond & set(used)))
    if harmful:
        shown = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(harmful[:4])))
        raise ConfigError(
            f"the tokenizer has {len(beyond)} more tokens than the model's embedding of {rows} rows, for example "
            f"{shown}",
            field="model: vocab_size in config.json",
            value=rows,
            remedy="Use the tokenizer that belongs to the model, or save the model after resize_token_embeddings().",
        )
    return (f"the tokenizer has {len(beyond)} special tokens that the model's embedding of {rows} rows lacks",)
