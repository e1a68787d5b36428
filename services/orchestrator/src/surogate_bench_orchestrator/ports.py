"""What the orchestrator needs from outside."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from surogate_bench_orchestrator.domain.tasks import Observation, Task


class Runtime(Protocol):
    """Runs tasks; every adapter passes tests/contract/test_runtime_contract.py.

    Methods raise TransientError when the runtime is away and PermanentError when it refuses; calling again is safe.
    """

    def capacity(self) -> int | None:
        """Slots that there are, taken or free: accelerators, or shares of the CPU.

        None where they are not counted: tasks are queued until there is room, and observed as not placed meanwhile.
        """
        ...

    def render(self, task: Task) -> Mapping[str, Any]:
        """Show what would be submitted, as plain JSON; does nothing."""
        ...

    def submit(self, task: Task) -> None:
        """Run a task, again where an attempt fails and another may help; does nothing if the name is known already."""
        ...

    def observe(self, names: Iterable[str]) -> Mapping[str, Observation]:
        """Tell where tasks are; those not known are ABSENT."""
        ...

    def endpoint(self, name: str) -> str:
        """URL at which a submitted server is reached from the other tasks; the same over its restarts."""
        ...

    def logs(self, name: str, *, tail: int) -> str:
        """Last ``tail`` lines that a task wrote over its attempts; empty if there are none."""
        ...

    def delete(self, name: str) -> None:
        """Stop a task and forget it; when this returns it no longer runs. Nothing happens if it is not known."""
        ...


class Clock(Protocol):
    """Time, so that tests need not wait."""

    def now(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...
