"""Check of a model's tokenizer against its embedding."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from surogate_bench.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_vocabulary(tokenizer: "PreTrainedTokenizerBase", rows: int, used: Iterable[int]) -> tuple[str, ...]:
    """Every token that can come up must have a row of the embedding.

    Args:
        tokenizer: The model's.
        rows: Rows of the embedding, the configuration's ``vocab_size``.
        used: Tokens of the data.

    Returns:
        Warnings: of special tokens without a row, which no text turns into.

    Raises:
        ConfigError: the tokenizer has tokens without a row.
    """
    beyond = {identifier for identifier in tokenizer.get_vocab().values() if identifier >= rows}
    if not beyond:
        return ()
    special = {identifier for identifier, token in tokenizer.added_tokens_decoder.items() if token.special}
    harmful = sorted((beyond - special) | (beyond & set(used)))
    if harmful:
        shown = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(harmful[:4])))
        raise ConfigError(
            f"the tokenizer has {len(beyond)} tokens more than the {rows} rows of the model's embedding, for example "
            f"{shown}",
            field="model: vocab_size in config.json",
            value=rows,
            remedy="Use the tokenizer that belongs to the model, or save the model after resize_token_embeddings().",
        )
    return (f"the tokenizer has {len(beyond)} special tokens that the model's embedding of {rows} rows lacks",)
