"""One of the processes that :mod:`surogate_bench_trainer.processes` starts for a training run on several GPUs."""

import logging
from pathlib import Path

from surogate_bench.stages.requests import TrainRequest
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_trainer.training.distributed.process_group import Membership, ProcessGroup
from surogate_bench_trainer.training.run import run_training
from surogate_bench_trainer.training.setup import configure_process, training_device


def run_rank(request: TrainRequest, rank: int, store: ObjectStore, work_dir: Path, rendezvous: Path) -> None:
    """Train together with the other processes; the first one publishes the adapter.

    Args:
        request: The training; its threads are those of this process.
        rank: Number of this process.
        store: The request's.
        work_dir: The training's, with the prepared data; only the first process writes to it.
        rendezvous: File through which the processes find each other.

    Raises:
        BenchError: as :func:`run_training`, or another process was lost.
    """
    if rank:
        logging.disable(logging.INFO)  # what the first process logs is true for all
    configure_process(request.threads)
    membership = Membership(rank=rank, processes=request.sweep.training.gpus, seed=request.seed, rendezvous=rendezvous)
    peers = ProcessGroup(membership, training_device())
    with peers.join():
        run_training(request, store, work_dir, peers)
