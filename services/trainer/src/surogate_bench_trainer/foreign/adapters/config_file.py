"""PEFT's ``adapter_config.json``, read strictly, and refused if vLLM would not serve what was trained."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from surogate_bench.contract import ADAPTER_CONFIG_FILE
from surogate_bench.errors import ConfigError, shorten

RawConfig = Mapping[str, Any]
_MOST_PATTERNS, _LONGEST_PATTERN = 4096, 512
_LARGEST_ALPHA = 1e30
"""NaN is not below it either."""
_SERVED_INITIALIZATIONS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
"""Those that set the adapter's first values only; all other named ones change the base model's weights too."""
_AS_PLAIN_LORA = "Train it as plain LoRA, or merge it into the base with PEFT and give that as the model."
_CONVERT = (
    "Save it with PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA of it, or train without it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """The settings that determine the scale of an adapter's matrices, and what the adapter states about itself."""

    rank: int
    alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base_model: str | None
    peft_version: str | None


def parse_config(data: bytes, *, field: str) -> AdapterConfig:
    """Read an adapter's configuration.

    Args:
        data: The file.
        field: Setting that names the adapter, for messages.

    Raises:
        ConfigError: it is not strict JSON, lacks what decides the scale, or asks for what vLLM does not serve; names
            field, value and remedy.
    """
    raw = _strict_json(data, field)
    for check in CHECKS:
        check(raw, field)
    return AdapterConfig(
        rank=_rank(raw, field),
        alpha=_alpha(raw, field),
        use_rslora=_flag(raw, "use_rslora", field),
        rank_pattern=_pattern(raw, "rank_pattern", field, _is_rank),
        alpha_pattern=_pattern(raw, "alpha_pattern", field, _is_alpha),
        base_model=_text(raw, "base_model_name_or_path"),
        peft_version=_text(raw, "peft_version"),
    )


def refused(field: str, key: str, problem: str, value: object, remedy: str) -> ConfigError:
    """Return the error for one setting of the adapter's configuration."""
    return ConfigError(problem, field=f"{field}: {key} in {ADAPTER_CONFIG_FILE}", value=value, remedy=remedy)


def _strict_json(data: bytes, field: str) -> RawConfig:
    try:
        raw = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _not_json(field, f"is not strict JSON: {shorten(str(error))}") from error
    if not isinstance(raw, dict):
        raise _not_json(field, "is not a JSON object")
    return raw


def _not_json(field: str, problem: str) -> ConfigError:
    return ConfigError(f"{ADAPTER_CONFIG_FILE} {problem}", field=field, remedy="Copy the adapter again.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key appears twice")
    return made


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _text(raw: RawConfig, key: str) -> str | None:
    value = raw.get(key)
    return shorten(value) if isinstance(value, str) and value else None


def _flag(raw: RawConfig, key: str, field: str) -> bool:
    value = raw.get(key) or False
    if not isinstance(value, bool):
        raise refused(field, key, "must be true or false", value, "Correct it.")
    return value


def _rank(raw: RawConfig, field: str) -> int:
    value = raw.get("r")
    if not _is_rank(value):
        raise refused(field, "r", "must be a whole number of at least 1", value, "Correct it.")
    return int(value)  # type: ignore[arg-type]


def _alpha(raw: RawConfig, field: str) -> float:
    value = raw.get("lora_alpha")
    if not _is_alpha(value):
        raise refused(field, "lora_alpha", "must be a finite number", value, "Correct it.")
    return float(value)  # type: ignore[arg-type]


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_alpha(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_ALPHA


def _pattern(raw: RawConfig, key: str, field: str, is_valid: Callable[[object], bool]) -> Mapping[str, Any]:
    """Check the size of a pattern table and its values; its keys are regular expressions."""
    table = raw.get(key) or {}
    if not isinstance(table, dict) or not all(map(is_valid, table.values())):
        raise refused(field, key, "must be a table of numbers by layer name", table, "Correct it.")
    if len(table) > _MOST_PATTERNS or any(len(name) > _LONGEST_PATTERN for name in table):
        problem = f"has more than {_MOST_PATTERNS} entries, or one of more than {_LONGEST_PATTERN} characters"
        raise refused(field, key, problem, f"{len(table)} entries", "Write shorter patterns.")
    return table


def _plain_lora(raw: RawConfig, field: str) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        problem = "is not LoRA, the only type of adapter that vLLM serves"
        raise refused(field, "peft_type", problem, kind, "Use LoRA.")


def _causal(raw: RawConfig, field: str) -> None:
    if raw.get("task_type") not in (None, "CAUSAL_LM"):
        problem = "was trained for another task than generating text"
        raise refused(field, "task_type", problem, raw["task_type"], "Use an adapter of a causal language model.")


def _no_dora(raw: RawConfig, field: str) -> None:
    if raw.get("use_dora"):
        problem = "uses DoRA, which vLLM does not serve: the magnitudes would be left out"
        raise refused(field, "use_dora", problem, raw["use_dora"], _AS_PLAIN_LORA)


def _no_biases(raw: RawConfig, field: str) -> None:
    for key, plain in (("bias", "none"), ("lora_bias", False)):
        if raw.get(key) not in (None, plain):
            raise refused(field, key, "has trained biases, which vLLM does not serve", raw[key], _AS_PLAIN_LORA)


def _no_whole_modules(raw: RawConfig, field: str) -> None:
    for key in ("modules_to_save", "trainable_token_indices"):
        if raw.get(key):
            problem = "contains whole modules or tokens in addition to its matrices, which vLLM would not load"
            raise refused(field, key, problem, raw[key], _AS_PLAIN_LORA)


def _no_parameters(raw: RawConfig, field: str) -> None:
    if raw.get("target_parameters"):
        problem = "adapts parameters that are not linear layers, such as the experts of a mixture"
        raise refused(field, "target_parameters", problem, raw["target_parameters"], "Adapt linear layers only.")


def _no_variant(raw: RawConfig, field: str) -> None:
    for key in _VARIANTS:
        if raw.get(key):
            problem = "is a variant of LoRA that vLLM does not compute"
            raise refused(field, key, problem, raw[key], _AS_PLAIN_LORA)


def _unchanged_base(raw: RawConfig, field: str) -> None:
    value = raw.get("init_lora_weights")
    if isinstance(value, str) and value.lower() not in _SERVED_INITIALIZATIONS:
        problem = "changed the base model's weights when training began, so the adapter does not fit the published ones"
        raise refused(field, "init_lora_weights", problem, value, _CONVERT)


_VARIANTS = (
    "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora", "kasa_config", "monteclora_config",
    "arrow_config",
)  # fmt: skip
"""Fields of PEFT's LoraConfig that change what an adapter computes."""

CHECKS: tuple[Callable[[RawConfig, str], None], ...] = (
    _plain_lora,
    _causal,
    _no_dora,
    _no_biases,
    _no_whole_modules,
    _no_parameters,
    _no_variant,
    _unchanged_base,
)
"""The most specific reason first."""
