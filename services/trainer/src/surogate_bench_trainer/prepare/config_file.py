"""Checks of a model's ``config.json`` as it is written, before transformers interprets it."""

from collections.abc import Callable, Mapping
from typing import Any

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.model.architectures import ARCHITECTURES

RawConfig = Mapping[str, Any]


def check_config_file(raw: RawConfig, *, known: bool) -> None:
    """Refuse kinds of models that cannot be trained, by what they are.

    Args:
        raw: The parsed ``config.json``.
        known: Whether transformers itself has the architecture.

    Raises:
        ConfigError: the model cannot be used; names the reason.
    """
    for check in CHECKS:
        check(raw, known)


def _no_remote_code(raw: RawConfig, known: bool) -> None:
    if raw.get("auto_map") and not known:
        raise ConfigError(
            "the architecture is Python code in the model's repository (auto_map in config.json), which is never run",
            field="model",
            value=raw.get("model_type"),
            remedy="Use a model whose architecture is part of transformers.",
        )


def _not_quantized(raw: RawConfig, known: bool) -> None:
    del known
    settings = raw.get("quantization_config")
    if settings:
        method = settings.get("quant_method", "unknown") if isinstance(settings, Mapping) else "unknown"
        raise ConfigError(
            f"the checkpoint is quantized already ({method}), and recipes start from bf16 weights",
            field="model",
            value=method,
            remedy="Use the unquantized checkpoint that it was made from.",
        )


def _decoder_only(raw: RawConfig, known: bool) -> None:
    del known
    if raw.get("is_encoder_decoder"):
        raise ConfigError(
            "is an encoder-decoder model, and causal language models are trained here",
            field="model",
            value=raw.get("model_type"),
            remedy="Use a decoder-only model.",
        )


def _text_only(raw: RawConfig, known: bool) -> None:
    del known
    parts = [name for name in ("vision_config", "audio_config") if raw.get(name)]
    if parts:
        raise ConfigError(
            f"the model is multimodal (config.json has {', '.join(parts)}), and text-only models are trained here",
            field="model",
            value=raw.get("model_type"),
            remedy="Use the family's text-only model, for example google/gemma-3-1b-it of Gemma 3.",
        )


def _supported_architecture(raw: RawConfig, known: bool) -> None:
    del known
    if raw.get("model_type") not in ARCHITECTURES:
        raise ConfigError(
            "this architecture is not supported: its packed training has not been verified against transformers",
            field="model",
            value=raw.get("model_type"),
            remedy=f"Use one of {', '.join(sorted(ARCHITECTURES))}.",
        )


CHECKS: tuple[Callable[[RawConfig, bool], None], ...] = (
    _no_remote_code,
    _not_quantized,
    _decoder_only,
    _text_only,
    _supported_architecture,
)
"""In the order in which they are made: the most particular reason first."""
