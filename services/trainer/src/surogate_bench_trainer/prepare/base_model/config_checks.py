"""Checks of a model's configuration against the features that training and serving support."""

from collections.abc import Callable, Iterator
from typing import Any

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.model_limits import longest_sequences, require_positions
from surogate_bench.recipes import Recipe
from surogate_bench_trainer.model.architectures import MIXTURE_OF_EXPERTS
from surogate_bench_trainer.model.heads import head_size_of, kv_heads_of
from surogate_bench_trainer.model.recipe_errors import skips_everything, unfit_width
from surogate_bench_trainer.prepare.base_model.facts import ConfigFacts

CPU_HEAD_SIZES = frozenset({32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512})
"""Head sizes that the attention kernels of vLLM's CPU build support."""
_WITH_SINKS = frozenset({"gpt_oss"})
_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})


def check_config(facts: ConfigFacts) -> None:
    """Refuse, from the model's configuration alone, models that would fail in a later and more expensive stage.

    Raises:
        ConfigError: the model cannot be used. The message names field, value and remedy.
    """
    for check in CHECKS:
        check(facts)


def _check_sizes(facts: ConfigFacts) -> None:
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size"):
        value = getattr(facts.config, name, None)
        if value is not None and value < 1:
            raise ConfigError(
                "must be at least 1",
                field=f"model: {name} in config.json",
                value=value,
                remedy="Use the config.json that belongs to the weights.",
            )


def _check_lengths(facts: ConfigFacts) -> None:
    require_positions(facts.sweep, getattr(facts.config, "max_position_embeddings", None))


def _check_rotary_embedding(facts: ConfigFacts) -> None:
    """Refuse rotary embeddings that depend on the longest sequence of a batch: packing would change short samples."""
    for kind, original in _rope_settings(facts.config):
        if kind not in {"dynamic", "longrope"}:
            continue
        for field, length in longest_sequences(facts.sweep):
            if original is not None and length > original:
                raise ConfigError(
                    f"the model's {kind} rotary embedding depends on the longest sequence of a batch beyond {original} "
                    "positions, so packed samples would differ from unpacked ones",
                    field=field,
                    value=length,
                    remedy=f"Lower it to {original} or less.",
                )


def _rope_settings(config: Any) -> Iterator[tuple[str, int | None]]:  # noqa: ANN401 - transformers is untyped
    settings = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [each for each in settings.values() if isinstance(each, dict)] or [settings]
    for each in by_layer_type:
        positions = each.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        yield str(each.get("rope_type", "default")), positions or getattr(config, "max_position_embeddings", None)


def _check_attention(facts: ConfigFacts) -> None:
    config = facts.config
    other_layers = sorted(set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES)
    unsupported = {
        "attention_dropout": getattr(config, "attention_dropout", 0.0) or None,
        "attention_chunk_size": getattr(config, "attention_chunk_size", None),
        "use_bidirectional_attention": getattr(config, "use_bidirectional_attention", None) or None,
        "is_causal": False if getattr(config, "is_causal", True) is False else None,
        "alibi": getattr(config, "alibi", None) or None,
        "layer_types": other_layers or None,
    }
    for name, value in unsupported.items():
        if value is not None:
            raise ConfigError(
                "packed training does not support this setting of the model's attention",
                field=f"model: {name} in config.json",
                value=value,
                remedy="Set attention_dropout to 0.0 in a copy of the model."
                if name == "attention_dropout"
                else "Use another model.",
            )


def has_full_attention(config: Any) -> bool:  # noqa: ANN401 - transformers is untyped
    """Return whether every layer attends to all earlier tokens, without windows, soft-capping or sinks."""
    windows = bool(getattr(config, "sliding_window", None)) or "sliding_attention" in (
        getattr(config, "layer_types", None) or ()
    )
    capped = bool(getattr(config, "attn_logit_softcapping", None))
    return not (windows or capped or config.model_type in _WITH_SINKS)


def _check_head_size(facts: ConfigFacts) -> None:
    size = head_size_of(facts.config)
    if facts.served_on_cpu and size not in CPU_HEAD_SIZES:
        raise ConfigError(
            "vLLM's CPU build does not support this head size, so the adapters could not be evaluated; it supports "
            f"{', '.join(map(str, sorted(CPU_HEAD_SIZES)))}",
            field="model: head_dim",
            value=size,
            remedy="Use another model, or serve on a GPU.",
        )


def _check_experts(facts: ConfigFacts) -> None:
    kind = facts.config.model_type
    if kind not in MIXTURE_OF_EXPERTS:
        return
    if facts.served_on_cpu:
        raise ConfigError(
            "vLLM's CPU build does not serve LoRA adapters of mixture-of-experts models",
            field="model",
            value=kind,
            remedy="Use a dense model, or serve on a GPU.",
        )
    quantizing = [recipe.name for recipe in facts.sweep.recipes if recipe.quantizes]
    if quantizing:
        raise ConfigError(
            "the model is a mixture of experts, whose expert weights are 3-D parameters that no recipe quantizes: most "
            "of its weights would stay in bf16",
            field=f"recipe {quantizing[0]}: model",
            value=kind,
            remedy="Use a dense model, or only the bf16 recipe.",
        )


def _check_recipes(facts: ConfigFacts) -> None:
    for recipe in facts.sweep.recipes:
        _check_recipe(facts.config, recipe)


def _check_recipe(config: Any, recipe: Recipe) -> None:  # noqa: ANN401 - transformers is untyped
    if recipe.skip_first_layers + recipe.skip_last_layers >= config.num_hidden_layers:
        raise skips_everything(recipe, config.num_hidden_layers)
    if recipe.on_indivisible == "refuse":
        _check_widths(config, recipe)


def _check_widths(config: Any, recipe: Recipe) -> None:  # noqa: ANN401 - see above
    of_inputs, of_outputs = recipe.multiples
    hidden, head = config.hidden_size, head_size_of(config)
    for name, width, multiple in (
        ("hidden_size", hidden, of_inputs),
        ("intermediate_size", getattr(config, "intermediate_size", None) or hidden, of_inputs),
        ("num_attention_heads x head_dim", config.num_attention_heads * head, of_inputs),
        ("num_key_value_heads x head_dim", kv_heads_of(config) * head, of_outputs),  # of no layer's inputs
    ):
        if width % multiple:
            raise unfit_width(recipe, f"the model's {name} is {width}", value=width)


CHECKS: tuple[Callable[[ConfigFacts], None], ...] = (
    _check_sizes,
    _check_lengths,
    _check_rotary_embedding,
    _check_attention,
    _check_experts,
    _check_head_size,
    _check_recipes,
)
"""All checks in order."""
