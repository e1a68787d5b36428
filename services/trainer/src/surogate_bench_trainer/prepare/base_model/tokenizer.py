"""Checks of a tokenizer: against the model's embedding, and where answers end if it has no end-of-text token."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.data.chat.templates import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def require_vocabulary(tokenizer: "PreTrainedTokenizerBase", folder: str) -> None:
    """Check that a tokenizer was found: transformers makes one without tokens of a folder that has no tokenizer.

    Raises:
        ConfigError: there is none.
    """
    if len(tokenizer.get_vocab()) <= len(tokenizer.added_tokens_decoder):
        raise ConfigError(
            "has no tokenizer, or one without a vocabulary",
            field="model",
            value=folder,
            remedy="Copy the tokenizer's files, such as tokenizer.json and tokenizer_config.json, to the folder.",
        )


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
    harmful = sorted((beyond - _special(tokenizer)) | (beyond & set(used)))
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


def answer_ends(
    tokenizer: "PreTrainedTokenizerBase",
    model: Path,
    config: Any,  # noqa: ANN401 - untyped
) -> tuple[int, ...] | None:
    """Return at which tokens a server has to end answers if the tokenizer has no end-of-text token.

    They are the special token with which the chat template ends an answer, and the end of text that the model's
    configuration states, if it is a special token too. vLLM stops at the latter whatever it is: a configuration that
    states none has that of its class, such as 2, which may be a letter of this tokenizer.

    Args:
        tokenizer: The model's tokenizer.
        model: Folder of the model.
        config: Its configuration.

    Returns:
        None if the tokenizer has an end-of-text token.
    """
    if tokenizer.eos_token_id is not None:
        return None
    special = _special(tokenizer)
    of_template = [token for token in _behind_answer(tokenizer) if token in special][:1]
    return tuple(sorted({*of_template, *(_configured_ends(model, config) & special)}))


def ending_warnings(
    tokenizer: "PreTrainedTokenizerBase", ends: Sequence[int] | None, *, is_templated: bool
) -> tuple[str, ...]:
    """Warn that answers have no end-of-text token.

    Args:
        tokenizer: The model's tokenizer.
        ends: Result of :func:`answer_ends`.
        is_templated: Whether training samples are rendered by the chat template.
    """
    if ends is None:
        return ()
    names = ", ".join(tokenizer.convert_ids_to_tokens(list(ends)))
    learned = "" if is_templated else ", which does not teach the model to end its answers"
    return (
        f"the tokenizer has no end-of-text token, so none is appended in training{learned}; in scoring, answers end "
        f"at the task's stop strings, {f'at {names}, ' if names else ''}or after evaluation.max_gen_toks tokens",
    )


def _special(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    return {identifier for identifier, token in tokenizer.added_tokens_decoder.items() if token.special}


def _behind_answer(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    if not tokenizer.chat_template:
        return ()
    try:
        return ChatTemplate(tokenizer, {}).end_of_answer()
    except Exception:  # noqa: BLE001 - a template may raise anything; sweeps that use it report why
        return ()


def _configured_ends(model: Path, config: Any) -> set[int]:  # noqa: ANN401 - untyped
    """Return where vLLM ends texts: at what ``generation_config.json`` states, or else the configuration."""
    from transformers import GenerationConfig  # noqa: PLC0415 - slow to import

    try:
        ends = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:  # there is no such file
        ends = config.eos_token_id
    return set() if ends is None else set(ends) if isinstance(ends, list) else {int(ends)}
