"""Checks of a checkpoint's tensors against its architecture: names, shapes, LoRA targets, coverage by recipes."""

from collections.abc import Callable, Iterable, Mapping

from surogate_bench.errors import ConfigError
from surogate_bench.specs.adapters import SERVED_MODULES
from surogate_bench.specs.lora import ALL_LINEAR, is_layer
from surogate_bench_trainer.model.coverage import (
    linear_paths,
    path_of,
    quantized_blocks,
    short_name,
    shortest_names,
    target_layers,
    transformer_blocks,
    uncovered_matrices,
)
from surogate_bench_trainer.model.fused_in_vllm import divided_group
from surogate_bench_trainer.model.recipe_errors import not_covered, unfit_width
from surogate_bench_trainer.prepare.base_model.checkpoint_files import abbreviated
from surogate_bench_trainer.prepare.base_model.facts import CheckpointFacts

WRAPPERS = ("_orig_mod.", "module.")
"""Prefixes that torch.compile and DistributedDataParallel add to the names of a model's tensors."""
_UNQUANTIZED = frozenset({"BF16", "F16", "F32", "F64"})
"""Types of safetensors that hold the weights themselves."""
_PREFIX_IN_VLLM = "model."
_TARGETS = "training.lora.target_modules"


def check_tensors(facts: CheckpointFacts) -> None:
    """Check a checkpoint against its architecture, and both against the sweep.

    Raises:
        ConfigError: they do not match. The message names tensors or layers, and the remedy.
    """
    for check in CHECKS:
        check(facts)


def _check_wrapper(facts: CheckpointFacts) -> None:
    for prefix in WRAPPERS:
        wrapped = [name for name in facts.types if name.startswith(prefix)]
        if wrapped:
            raise ConfigError(
                f"{len(wrapped)} of {len(facts.types)} tensors are named '{prefix}…', for example {wrapped[0]}: the "
                "checkpoint was written from a wrapped model",
                field="model",
                value=facts.sweep.model.label,
                remedy="Save the wrapped model itself, or remove the prefix from the names of the tensors.",
            )


def _check_missing(facts: CheckpointFacts) -> None:
    _refuse_keys(
        facts, "missing_keys", "lacks {count} of its architecture's tensors, which would be initialized randomly"
    )


def _check_unexpected(facts: CheckpointFacts) -> None:
    _refuse_keys(facts, "unexpected_keys", "has tensors that its architecture does not have ({count})")


def _refuse_keys(facts: CheckpointFacts, kind: str, problem: str) -> None:
    names = sorted(facts.loading[kind])
    if names:
        raise ConfigError(
            f"the checkpoint {problem.format(count=len(names))}: {abbreviated(names)}",
            field="model",
            value=facts.sweep.model.label,
            remedy="Use a complete checkpoint of the architecture that its config.json names.",
        )


def _check_shapes(facts: CheckpointFacts) -> None:
    differing = sorted(
        f"{name} is {_shape(found)}, but {_shape(expected)} by config.json"
        for name, found, expected in facts.loading["mismatched_keys"]
    )
    if differing:
        raise ConfigError(
            f"tensors of the checkpoint have unexpected shapes ({len(differing)}): {abbreviated(differing)}",
            field="model",
            value=facts.sweep.model.label,
            remedy="Use the config.json that belongs to these weights.",
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _check_types(facts: CheckpointFacts) -> None:
    """Refuse weights in types of quantized ones, whose scales nothing would apply; other buffers may be of any type."""
    quantized = sorted(
        name for name, kind in facts.types.items() if name.endswith(".weight") and kind not in _UNQUANTIZED
    )
    if quantized:
        raise ConfigError(
            f"weights are stored as {facts.types[quantized[0]]}, a type of quantized checkpoints ({len(quantized)}): "
            f"{abbreviated(quantized)}",
            field="model",
            value=facts.sweep.model.label,
            remedy="Use the unquantized checkpoint, in bf16, fp16 or fp32.",
        )


def _check_lora_targets(facts: CheckpointFacts) -> None:
    """Check that every target is a linear layer of the blocks, and that vLLM serves adapters on all of them."""
    lora, layers = facts.sweep.training.lora, linear_paths(facts.model)
    available = sorted(set(map(short_name, layers)))
    missing = [] if ALL_LINEAR in lora.target_modules else _without_layer(lora.target_modules, layers)
    if missing:
        kept = [target for target in lora.target_modules if target not in missing]
        raise ConfigError(
            f"match no linear layer of the model: {', '.join(missing)}; its transformer blocks have "
            f"{', '.join(available)}",
            field=_TARGETS,
            value=list(lora.target_modules),
            remedy=f"Use only {', '.join(kept)}." if kept else f"Use some of them, or {ALL_LINEAR}.",
        )
    unserved = sorted({short_name(layer) for layer in layers if lora.targets(layer)} - SERVED_MODULES)
    if unserved:
        raise ConfigError(
            f"vLLM is not known to serve adapters on these layers: {', '.join(unserved)}",
            field=_TARGETS,
            value=list(lora.target_modules),
            remedy=f"Use some of {', '.join(sorted(set(available) & SERVED_MODULES))}.",
        )


def _check_lora_patterns(facts: CheckpointFacts) -> None:
    """Check that every pattern of rank and alpha has an effect, whatever their order."""
    lora = facts.sweep.training.lora
    adapted = [layer for layer in linear_paths(facts.model) if lora.targets(layer)]
    for name, table in (("rank_pattern", lora.rank_pattern), ("alpha_pattern", lora.alpha_pattern)):
        field = f"training.lora.{name}"
        if missing := _without_layer(table, adapted):
            listed = ", ".join(shortest_names(adapted, linear_paths(facts.model)))
            raise ConfigError(
                f"match no layer with an adapter: {', '.join(missing)}; adapters are on {listed}",
                field=field,
                value=dict(table),
                remedy="Correct the names, or leave them out.",
            )
        for layer in adapted:
            _refuse_two_values(field, table, layer)


def _refuse_two_values(field: str, table: Mapping[str, float], layer: str) -> None:
    matching = [expression for expression in table if is_layer(expression, layer)]
    if len({table[expression] for expression in matching}) > 1:
        raise ConfigError(
            f"give {layer} different values: {', '.join(matching)}",
            field=field,
            value=dict(table),
            remedy="Write them so that each layer matches one, because the order of a mapping has no meaning.",
        )


def _without_layer(expressions: Iterable[str], layers: Iterable[str]) -> list[str]:
    return [each for each in expressions if not any(is_layer(each, layer) for layer in layers)]


def _check_coverage(facts: CheckpointFacts) -> None:
    for recipe in facts.sweep.recipes:
        uncovered = uncovered_matrices(facts.model, quantized_blocks(facts.model, recipe))
        if recipe.quantizes and uncovered:
            raise not_covered(
                recipe,
                f"would leave weights of the transformer blocks in bf16 that are not linear layers: "
                f"{abbreviated(sorted(uncovered))}",
                value=facts.config.model_type,
            )


def _check_dimensions(facts: CheckpointFacts) -> None:
    """Check the layers that each recipe divides into blocks, of any names and widths."""
    blocks = path_of(transformer_blocks(facts.model), facts.model)
    for recipe in facts.sweep.recipes:
        layers = target_layers(facts.model, recipe)
        unfit = [(name, each) for name, each in layers if not recipe.fits(each.in_features, each.out_features)]
        can_keep = len(unfit) < len(layers)
        if unfit and (recipe.on_indivisible == "refuse" or not (can_keep or recipe.on_indivisible == "pad")):
            name, first = unfit[0]
            raise unfit_width(
                recipe,
                f"{len(unfit)} of {len(layers)} layers have others; {blocks}.{name} has {first.in_features} inputs and "
                f"{first.out_features} outputs",
                value=facts.config.model_type,
                can_keep=can_keep,
            )


def _check_served_names(facts: CheckpointFacts) -> None:
    """Check that vLLM finds the input scales of FP8 products by the names that training gives them."""
    sweep = facts.sweep
    scaled = [name for name in sweep.served_under if name and sweep.recipe(name).scales_inputs]
    renamed = [path for path in linear_paths(facts.model) if not path.startswith(_PREFIX_IN_VLLM)]
    if scaled and renamed:
        raise ConfigError(
            f"vLLM has other names for this model's layers, for example {renamed[0]}, and would not find the input "
            f"scales of FP8 products: {', '.join(scaled)}",
            field="serving.under",
            value=list(sweep.serving.under),
            remedy="Leave out serving.under, or these recipes.",
        )


def _check_served_together(facts: CheckpointFacts) -> None:
    """Check that no recipe to serve under keeps only some of the layers in bf16 that vLLM multiplies as one."""
    sweep = facts.sweep
    for recipe in (sweep.recipe(name) for name in sweep.served_under if name):
        layers = dict(target_layers(facts.model, recipe))
        kept = [name for name, layer in layers.items() if not recipe.fits(layer.in_features, layer.out_features)]
        group = divided_group(kept, layers) if recipe.on_indivisible == "keep" else ()
        if group:
            raise ConfigError(
                f"vLLM multiplies {', '.join(map(short_name, group))} as one matrix, and recipe {recipe.name} keeps "
                f"only {', '.join(short_name(name) for name in group if name in kept)} in bf16 (on_indivisible)",
                field="serving.under",
                value=list(sweep.serving.under),
                remedy="Leave this recipe out of serving.under, or pad such layers (on_indivisible: pad).",
            )


def _check_merging(facts: CheckpointFacts) -> None:
    """Check that an adapter's layers have weights of their names, which are what it is merged into."""
    sweep = facts.sweep
    adapted = sweep.training.lora.targets if not sweep.adapters else lambda path: short_name(path) in SERVED_MODULES
    weights = [f"{path}.weight" for path in linear_paths(facts.model) if adapted(path)]
    missing = sorted(set(weights) - facts.types.keys())
    if sweep.serving.merged and missing:
        raise ConfigError(
            f"adapters cannot be merged: the checkpoint has no tensors of these names of layers ({len(missing)}): "
            f"{abbreviated(missing)}",
            field="serving.merged",
            value=True,
            remedy="Load the model with transformers and save it again, or leave serving.merged out.",
        )


CHECKS: tuple[Callable[[CheckpointFacts], None], ...] = (
    _check_wrapper,
    _check_missing,
    _check_unexpected,
    _check_types,
    _check_shapes,
    _check_lora_targets,
    _check_lora_patterns,
    _check_coverage,
    _check_dimensions,
    _check_served_names,
    _check_served_together,
    _check_merging,
)
"""All checks in order."""
