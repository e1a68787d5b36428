"""A runtime that runs nothing: tasks go through their phases as a test advances it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from typing_extensions import override

from surogate_bench.errors import PermanentError
from surogate_bench_orchestrator.domain.tasks import ABSENT, Observation, Phase, Task
from surogate_bench_orchestrator.ports import Runtime


class Ending(Enum):
    """How an attempt ends."""

    OK = auto()
    OK_WITHOUT_RESULT = auto()
    CRASH = auto()  # another attempt may help
    BAD_INPUT = auto()  # no other attempt would help
    UNSUPPORTED = auto()
    HANG = auto()  # until the deadline


@dataclass(slots=True)
class _Entry:
    task: Task
    observation: Observation
    log: list[str] = field(default_factory=list)


class MemoryRuntime(Runtime):
    """Advances every task by one phase at each :meth:`advance`: pending, running, ended.

    Args:
        slots: Capacity; a submission beyond it is an error, as only a wrong decision makes one.
        ending: How an attempt of a task ends.
        publish: Called with the task when it ends well, before this can be observed.
    """

    def __init__(
        self, *, slots: int, ending: Callable[[Task, int], Ending], publish: Callable[[Task], None] = lambda _: None
    ) -> None:
        self._slots = slots
        self._ending = ending
        self._publish = publish
        self._entries: dict[str, _Entry] = {}
        self.submitted: list[str] = []
        """Names in the order in which they were accepted."""

    @override
    def capacity(self) -> int:
        return self._slots

    @override
    def render(self, task: Task) -> Mapping[str, Any]:
        return {"name": task.name, "service": task.service.value, "request": task.request.model_dump(mode="json")}

    @override
    def submit(self, task: Task) -> None:
        if task.name in self._entries:
            return
        taken = sum(entry.task.slots for entry in self._entries.values() if entry.observation.phase.is_active)
        if taken + task.slots > self._slots:
            raise PermanentError(f"{task.name} needs {task.slots} slots; {taken} of {self._slots} are taken")
        self._entries[task.name] = _Entry(task, Observation(phase=Phase.PENDING, attempt=1, elapsed_s=0.0))
        self.submitted.append(task.name)

    @override
    def observe(self, names: Iterable[str]) -> Mapping[str, Observation]:
        return {name: self._entries[name].observation if name in self._entries else ABSENT for name in names}

    @override
    def endpoint(self, name: str) -> str:
        if name not in self._entries:
            raise PermanentError(f"{name} was not submitted")
        return f"http://{name}:8100"

    @override
    def logs(self, name: str, *, tail: int) -> str:
        lines = self._entries[name].log if name in self._entries else []
        return "\n".join(lines[-tail:])

    @override
    def delete(self, name: str) -> None:
        self._entries.pop(name, None)

    def advance(self) -> None:
        """Let every active task go one phase on."""
        for entry in self._entries.values():
            if entry.observation.phase is Phase.PENDING:
                entry.log.append(f"attempt {entry.observation.attempt}")
                entry.observation = replace(entry.observation, phase=Phase.RUNNING)
            elif entry.observation.phase is Phase.RUNNING:
                self._end(entry, self._ending(entry.task, entry.observation.attempt))

    def _end(self, entry: _Entry, ending: Ending) -> None:
        if ending is Ending.OK and entry.task.is_server:
            return  # goes on until deleted
        match ending:
            case Ending.OK | Ending.OK_WITHOUT_RESULT:
                if ending is Ending.OK:
                    self._publish(entry.task)
                entry.observation = replace(entry.observation, phase=Phase.SUCCEEDED, reason="", message="")
            case Ending.CRASH if entry.observation.attempt < entry.task.max_attempts:
                entry.observation = replace(
                    entry.observation, phase=Phase.PENDING, attempt=entry.observation.attempt + 1, reason="Killed"
                )
            case Ending.CRASH:
                entry.observation = replace(entry.observation, phase=Phase.FAILED, reason="Killed", message="crashed")
            case Ending.BAD_INPUT:
                entry.observation = replace(
                    entry.observation, phase=Phase.FAILED, reason="ConfigError", message="bad input"
                )
            case Ending.UNSUPPORTED:
                entry.observation = replace(
                    entry.observation, phase=Phase.FAILED, reason="UnsupportedRecipeError", message="cannot"
                )
            case Ending.HANG:
                entry.observation = replace(
                    entry.observation, phase=Phase.FAILED, reason="DeadlineExceeded", message="too long"
                )
