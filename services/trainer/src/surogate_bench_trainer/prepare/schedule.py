"""Check of the learning-rate schedule against the length of the training."""

from collections.abc import Sequence

from surogate_bench.errors import ConfigError
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.training import TrainingSpec
from surogate_bench_trainer.data.schedule import schedule_batches


def check_schedule(lengths: Sequence[int], sweep: RecipeSweep) -> tuple[str, ...]:
    """Check that training changes the adapters, and warn if the warmup covers the whole training.

    Args:
        lengths: Tokens of each training sample.
        sweep: Provides training settings and seeds. Packing, and so the number of steps, depends on the seed.

    Returns:
        Warnings.

    Raises:
        ConfigError: every optimizer step has a learning rate of zero, so every LoRA B would stay zero.
    """
    training = sweep.training
    steps = min(schedule_batches(lengths, training, seed=seed).total_steps for seed in sweep.seeds)
    warmup = training.warmup_steps
    if steps <= steps_without_effect(training):
        raise ConfigError(
            f"the training has {steps} optimizer step, and step 1 of a warmup of {warmup} steps has a learning rate of "
            "zero: the adapters would keep their initial values, which have no effect",
            field="training.warmup_steps",
            value=warmup,
            remedy="Set it to 0, or raise training.epochs or training.max_steps.",
        )
    if warmup < steps:
        return ()
    reached = training.learning_rate * (steps - 1) / warmup
    return (
        f"training.warmup_steps ({warmup}) covers the whole training of {steps} optimizer steps: the learning rate "
        f"ends at {reached:.3g} and never reaches training.learning_rate ({training.learning_rate:.3g})",
    )


def steps_without_effect(training: TrainingSpec) -> int:
    """Return the number of initial steps with a learning rate of zero, at which a linear warmup starts."""
    return 1 if training.warmup_steps else 0
