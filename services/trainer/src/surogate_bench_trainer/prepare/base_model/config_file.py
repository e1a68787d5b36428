"""Checks of the content of a model's ``config.json``, before transformers interprets it."""

from collections.abc import Callable, Mapping
from typing import Any

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.model.architectures import ARCHITECTURES, REASONS, UNVERIFIED

RawConfig = Mapping[str, Any]


def check_config_file(raw: RawConfig, *, known: bool) -> None:
    """Refuse kinds of models that cannot be trained.

    Args:
        raw: The parsed ``config.json``.
        known: Whether the architecture is part of transformers.

    Raises:
        ConfigError: the model cannot be used. The message names the reason.
    """
    for check in CHECKS:
        check(raw, known)


def _check_remote_code(raw: RawConfig, known: bool) -> None:
    if raw.get("auto_map") and not known:
        raise ConfigError(
            "the architecture is Python code in the model's repository (auto_map in config.json), which is never run",
            field="model",
            value=raw.get("model_type"),
            remedy="Use a model whose architecture is part of transformers.",
        )


def _check_quantization(raw: RawConfig, known: bool) -> None:
    del known
    settings = raw.get("quantization_config") or raw.get("compression_config")  # vLLM reads both
    if settings:
        method = settings.get("quant_method", "unknown") if isinstance(settings, Mapping) else "unknown"
        raise ConfigError(
            f"the checkpoint is quantized already ({method}), and recipes start from bf16 weights",
            field="model",
            value=method,
            remedy="Use the unquantized checkpoint that it was made from.",
        )


def _check_decoder_only(raw: RawConfig, known: bool) -> None:
    del known
    if raw.get("is_encoder_decoder"):
        raise ConfigError(
            "is an encoder-decoder model; only causal language models can be trained",
            field="model",
            value=raw.get("model_type"),
            remedy="Use a decoder-only model.",
        )


def _check_text_only(raw: RawConfig, known: bool) -> None:
    del known
    parts = [name for name in ("vision_config", "audio_config") if raw.get(name)]
    if parts:
        raise ConfigError(
            f"the model is multimodal (config.json has {', '.join(parts)}), and only text-only models can be trained",
            field="model",
            value=raw.get("model_type"),
            remedy="Use the family's text-only model, for example google/gemma-3-1b-it of Gemma 3.",
        )


def _check_architecture(raw: RawConfig, known: bool) -> None:
    del known
    kind = raw.get("model_type")
    if str(kind) not in ARCHITECTURES:
        raise ConfigError(
            f"this architecture is not supported: {REASONS.get(str(kind), UNVERIFIED)}",
            field="model",
            value=kind,
            remedy=f"Use one of {', '.join(sorted(ARCHITECTURES))}.",
        )


CHECKS: tuple[Callable[[RawConfig, bool], None], ...] = (
    _check_remote_code,
    _check_quantization,
    _check_decoder_only,
    _check_text_only,
    _check_architecture,
)
"""All checks in order, the most specific reason first."""
