"""What a process of a training run must agree on with the others that train the same run."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from typing_extensions import override

from surogate_bench.processes.service import Terminated


class Peers(Protocol):
    """The processes that train one run together, from the place of one of them.

    All of them call the same methods in the same order. Each method but the first two returns only once all have called
    it, and raises ``TransientError`` if one of them is lost or does not respond in time.
    """

    @property
    def leads(self) -> bool:
        """Whether this process writes logs, metrics, progress, checkpoints and the adapter."""
        ...

    @property
    def processes(self) -> int:
        """Number of processes, this one included."""
        ...

    def share(self, count: int) -> Sequence[int]:
        """Return the numbers of the micro-batches, of ``count``, that this process computes."""
        ...

    def restart_noise(self, generators: Iterable[torch.Generator], *, step: int, micro_batch: int) -> None:
        """Seed what a micro-batch draws, where several processes draw: torch's default generators and those given."""
        ...

    def total(self, values: Tensor, *, stopped: bool) -> Tensor:
        """Sum a tensor over all processes, and with it whether one of them was asked to stop.

        Args:
            values: Small, on the device of the training.
            stopped: Whether this process was asked to stop.

        Returns:
            The sums, in fp64 where there are several processes.

        Raises:
            Terminated: a process was asked to stop; all processes raise it.
        """
        ...

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        ...

    def largest(self, tensor: Tensor) -> None:
        """Replace a tensor by its elementwise maximum over all processes."""
        ...

    def require_same_start(self, step: int, master: Tensor) -> None:
        """Check that all processes start after the same optimizer step and with the same master weights.

        Raises:
            TransientError: they do not.
        """
        ...


class Alone(Peers):
    """The only process of a training run."""

    leads = True
    processes = 1

    @override
    def share(self, count: int) -> Sequence[int]:
        return range(count)

    @override
    def restart_noise(self, generators: Iterable[torch.Generator], *, step: int, micro_batch: int) -> None:
        return  # generators run on from micro-batch to micro-batch

    @override
    def total(self, values: Tensor, *, stopped: bool) -> Tensor:
        if stopped:
            raise Terminated
        return values

    @override
    def add(self, tensor: Tensor) -> None:
        return

    @override
    def largest(self, tensor: Tensor) -> None:
        return

    @override
    def require_same_start(self, step: int, master: Tensor) -> None:
        return


ALONE = Alone()
