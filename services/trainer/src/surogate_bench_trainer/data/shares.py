"""How the processes of a training run share its work; pure functions of numbers, so that no agreement is needed."""

import numpy as np


def share_of(rank: int, processes: int, count: int) -> range:
    """Return the numbers of the micro-batches that one process computes, of ``count`` that all compute together.

    Every micro-batch is computed whole by one process, so that the scales of its tensors are those that a single
    process finds. At the end of an epoch some processes may have one less than others, or none.

    Args:
        rank: The process, counted from 0.
        processes: Number of processes.
        count: Number of micro-batches.
    """
    return range(rank, count, processes)


def noise_seed(seed: int, step: int, micro_batch: int) -> int:
    """Return the seed of what one micro-batch draws (stochastic rounding, dropout): 63 bits.

    It does not depend on the process that computes the micro-batch, nor on their number.

    Args:
        seed: Seed of the run.
        step: Optimizer step, counted from 0.
        micro_batch: Number of the micro-batch within the step.
    """
    state = np.random.SeedSequence((seed, step, micro_batch)).generate_state(1, np.uint64)
    return int(state[0]) >> 1
