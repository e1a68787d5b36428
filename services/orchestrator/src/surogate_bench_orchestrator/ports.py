"""Interfaces that the sweep and the controller use: what runs tasks, and time."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from surogate_bench_orchestrator.domain.tasks import Observation, Task


class Runtime(Protocol):
    """Runs tasks; every adapter passes tests/contract/test_runtime_contract.py.

    Methods raise TransientError when the runtime is unavailable, and PermanentError when it refuses; calls may be
    repeated.
    """

    def capacity(self) -> int | None:
        """Return the number of slots, taken or free: accelerators, or shares of the CPU.

        None if they are not counted: tasks are queued until there is room, and observed as not placed until then.
        """
        ...

    def render(self, task: Task) -> Mapping[str, Any]:
        """Return what would be submitted, as plain JSON, and submit nothing."""
        ...

    def submit(self, task: Task) -> None:
        """Run a task, and retry it if an attempt fails for a cause that may pass; no effect if the name is known."""
        ...

    def observe(self, names: Iterable[str]) -> Mapping[str, Observation]:
        """Return the state of tasks; a task that is not known is ABSENT."""
        ...

    def endpoint(self, name: str) -> str:
        """Return the URL at which other tasks reach a submitted server; restarts do not change it."""
        ...

    def logs(self, name: str, *, tail: int) -> str:
        """Return the last ``tail`` lines that a task wrote over its attempts; empty if there are none."""
        ...

    def delete(self, name: str) -> None:
        """Stop and forget a task; it has ended when this returns. No effect if it is not known."""
        ...


class Clock(Protocol):
    """Time, which tests replace."""

    def now(self) -> float:
        """Return the seconds since an arbitrary moment; never decreases."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...
