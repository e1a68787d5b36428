"""Processes that train one run together, through torch.distributed: gloo between CPUs, NCCL between GPUs.

Every process has the whole model and computes some of the micro-batches of each optimizer step. Gradients, losses and
what delayed scaling has recorded are combined once per step; then all processes make the same update.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore, Store
from typing_extensions import override

from surogate_bench.contract import PEER_TIMEOUT_VARIABLE
from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.processes.service import Terminated
from surogate_bench_trainer.data.shares import noise_seed, share_of
from surogate_bench_trainer.training.distributed.peers import Peers

_TIMEOUT_S = 900.0
"""Longer than the first process may take to store a checkpoint, or any process to load the model."""


class PeerLostError(TransientError):
    """Another process of the training has ended, or does not respond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The place of a process among those that train one run."""

    rank: int
    processes: int
    seed: int
    """Seed of the run."""
    rendezvous: Path
    """File through which the processes find each other; it does not exist before the first one does."""


class ProcessGroup(Peers):
    """One of several processes that train a run.

    Args:
        membership: Its place.
        device: What it computes on.
    """

    def __init__(self, membership: Membership, device: torch.device) -> None:
        self._membership = membership
        self._device = device

    @property
    @override
    def leads(self) -> bool:
        return self._membership.rank == 0

    @property
    @override
    def processes(self) -> int:
        return self._membership.processes

    @override
    def share(self, count: int) -> Sequence[int]:
        return share_of(self._membership.rank, self.processes, count)

    @override
    def restart_noise(self, generators: Iterable[torch.Generator], *, step: int, micro_batch: int) -> None:
        seed = noise_seed(self._membership.seed, step, micro_batch)
        torch.manual_seed(seed)
        for generator in generators:
            generator.manual_seed(seed)

    @override
    def total(self, values: Tensor, *, stopped: bool) -> Tensor:
        flag = torch.full((1,), float(stopped), dtype=torch.float64, device=self._device)
        sums = torch.cat((values.double().flatten(), flag))
        self.add(sums)
        if sums[-1] > 0:
            raise Terminated
        return sums[:-1].view(values.shape)

    @override
    def add(self, tensor: Tensor) -> None:
        with self._waiting():
            dist.all_reduce(tensor, dist.ReduceOp.SUM)

    @override
    def largest(self, tensor: Tensor) -> None:
        with self._waiting():
            dist.all_reduce(tensor, dist.ReduceOp.MAX)

    @override
    def require_same_start(self, step: int, master: Tensor) -> None:
        digest = hashlib.sha256(master.detach().cpu().numpy().tobytes()).digest()
        mine = torch.tensor([step, int.from_bytes(digest[:7])], dtype=torch.int64, device=self._device)
        highest, lowest = mine.clone(), -mine
        self.largest(highest)
        self.largest(lowest)
        if not torch.equal(highest, -lowest):
            raise TransientError(
                "the processes of this training do not start from the same state: a checkpoint was stored, or one was "
                "found to be damaged, while they read it"
            )

    @contextmanager
    def join(self) -> Iterator[None]:
        """Find the other processes, and leave them at the end.

        Raises:
            PeerLostError: they did not all appear.
            ConfigError: not all of them have a GPU, or none of them.
        """
        with self._waiting():
            store = FileStore(str(self._membership.rendezvous), self.processes)
            store.set_timeout(_timeout())
            kinds = self._kinds(store)
        if len(set(kinds)) > 1:
            raise ConfigError(
                f"only {kinds.count('cuda')} of the processes found a GPU",
                field="training.gpus",
                value=self.processes,
                remedy="Give the run as many GPUs, or lower training.gpus.",
            )
        with self._waiting():
            dist.init_process_group(
                "nccl" if self._device.type == "cuda" else "gloo",
                store=store,
                rank=self._membership.rank,
                world_size=self.processes,
                timeout=_timeout(),
                device_id=self._device if self._device.type == "cuda" else None,
            )
        yield
        dist.destroy_process_group()

    def _kinds(self, store: Store) -> list[str]:
        """Announce the type of this process's device to the others, and return those of all."""
        store.set(f"device/{self._membership.rank}", self._device.type)
        return [store.get(f"device/{rank}").decode() for rank in range(self.processes)]

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # the base class of all errors of torch.distributed
            raise PeerLostError(
                f"the other processes of the training have ended, or did not respond within {_timeout().seconds} s: "
                f"{str(error).splitlines()[0]}"
            ) from error


def _timeout() -> timedelta:
    return timedelta(seconds=float(os.environ.get(PEER_TIMEOUT_VARIABLE) or _TIMEOUT_S))
