"""Checks of a checkpoint's tensors against the architecture: names and shapes, LoRA targets, what recipes cover."""

from collections.abc import Callable

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.model.coverage import linear_names, uncovered_matrices
from surogate_bench_trainer.prepare.checkpoint_files import shortened
from surogate_bench_trainer.prepare.model_facts import CheckpointFacts

WRAPPERS = ("_orig_mod.", "module.")
"""Prefixes that torch.compile and DistributedDataParallel put before the names of a model's tensors."""


def check_tensors(facts: CheckpointFacts) -> None:
    """Compare a checkpoint with its architecture, and both with the sweep.

    Raises:
        ConfigError: naming tensors or layers, and the remedy.
    """
    for check in CHECKS:
        check(facts)


def _no_wrapper(facts: CheckpointFacts) -> None:
    for prefix in WRAPPERS:
        wrapped = [name for name in facts.names if name.startswith(prefix)]
        if wrapped:
            raise ConfigError(
                f"{len(wrapped)} of {len(facts.names)} tensors are named '{prefix}…', for example {wrapped[0]}: the "
                "checkpoint was written from a wrapped model",
                field="model",
                value=facts.sweep.model.label,
                remedy="Save the model that is inside the wrapper, or rename the tensors without the prefix.",
            )


def _nothing_missing(facts: CheckpointFacts) -> None:
    _refuse_keys(facts, "missing_keys", "lacks {count} of its architecture's tensors, which would be random")


def _nothing_unexpected(facts: CheckpointFacts) -> None:
    _refuse_keys(facts, "unexpected_keys", "has tensors that its architecture does not have ({count})")


def _refuse_keys(facts: CheckpointFacts, kind: str, problem: str) -> None:
    names = sorted(facts.loading[kind])
    if names:
        raise ConfigError(
            f"the checkpoint {problem.format(count=len(names))}: {shortened(names)}",
            field="model",
            value=facts.sweep.model.label,
            remedy="Use a complete checkpoint of the architecture that its config.json names.",
        )


def _same_shapes(facts: CheckpointFacts) -> None:
    differing = sorted(
        f"{name} is {_shape(found)} where config.json makes it {_shape(expected)}"
        for name, found, expected in facts.loading["mismatched_keys"]
    )
    if differing:
        raise ConfigError(
            f"tensors of the checkpoint have other shapes ({len(differing)}): {shortened(differing)}",
            field="model",
            value=facts.sweep.model.label,
            remedy="Use the config.json that belongs to these weights.",
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _lora_targets(facts: CheckpointFacts) -> None:
    targets, there = facts.sweep.training.lora.target_modules, linear_names(facts.model)
    missing = [target for target in targets if target not in there]
    if missing:
        kept = [target for target in targets if target in there]
        raise ConfigError(
            f"match no linear layer of the model: {', '.join(missing)}; its transformer blocks have "
            f"{', '.join(sorted(there))}",
            field="training.lora.target_modules",
            value=list(targets),
            remedy=f"Use {', '.join(kept)} alone." if kept else "Use another model.",
        )


def _recipes_cover(facts: CheckpointFacts) -> None:
    left = uncovered_matrices(facts.model)
    for recipe in facts.sweep.recipes:
        if recipe.quantizes and left:
            raise ConfigError(
                f"would leave weights of the transformer blocks in bf16 that are not linear layers: "
                f"{shortened(sorted(left))}",
                field=f"recipe {recipe.name}: model",
                value=facts.config.model_type,
                remedy="Use a dense model, or the bf16 recipe alone.",
            )


CHECKS: tuple[Callable[[CheckpointFacts], None], ...] = (
    _no_wrapper,
    _nothing_missing,
    _nothing_unexpected,
    _same_shapes,
    _lora_targets,
    _recipes_cover,
)
"""In the order in which they are made."""
