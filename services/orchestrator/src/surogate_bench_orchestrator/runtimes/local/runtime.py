"""Run tasks as processes on this machine.

Every task is a service in a session of its own. The kernel ends it when this orchestrator dies (see
``surogate_bench.processes.service.die_with_parent``); any process that survives is stopped by
:meth:`LocalRuntime.take_over` of the next one. Tasks of a dead orchestrator are ABSENT: whether they were done is known
from the store only.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from typing_extensions import override

from surogate_bench.contract import (
    GPUS_VARIABLE,
    LOOPBACK,
    TASK_DIR_VARIABLE,
    THREADS_VARIABLE,
    WORK_DIR_OPTION,
    Service,
)
from surogate_bench.errors import PermanentError
from surogate_bench.files import write_atomically
from surogate_bench.processes.progress import read_progress
from surogate_bench.stages.requests import (
    CheckRequest,
    EvaluateRequest,
    ForeignTrainRequest,
    ImportRequest,
    ServeRequest,
    TrainRequest,
)
from surogate_bench.user_paths import unwritable
from surogate_bench_orchestrator.domain.tasks import ABSENT, Observation, Phase, Task, TaskRequest
from surogate_bench_orchestrator.ports import Clock, Runtime
from surogate_bench_orchestrator.runtimes.local import processes
from surogate_bench_orchestrator.runtimes.local.machine import Allotment
from surogate_bench_orchestrator.runtimes.local.processes import ProcessId
from surogate_bench_orchestrator.runtimes.local.state import TaskFolder, TaskState
from surogate_bench_orchestrator.runtimes.local.supervised import STOP_GRACE_S, Launch, SupervisedTask
from surogate_bench_orchestrator.runtimes.local.tcp_ports import free_ports

_LEFTOVER_GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL for processes that received a SIGTERM when their orchestrator died."""


def service_command(service: Service) -> list[str]:
    """Return the command that starts a service; ``-P`` keeps the current folder off its import path."""
    return [sys.executable, "-P", "-m", service.module]


class LocalRuntime(Runtime):
    """Runs tasks as child processes. As a context manager it stops its tasks at the end.

    Args:
        root: Folder for state, logs and scratch files; one orchestrator at a time may :meth:`take_over`.
        allotment: How tasks share the machine.
        clock: For deadlines and back-off.
        command: Returns the command that starts a service.
    """

    def __init__(
        self,
        root: Path,
        allotment: Allotment,
        clock: Clock,
        *,
        command: Callable[[Service], list[str]] = service_command,
    ) -> None:
        self._root = root.absolute()
        self._allotment = allotment
        self._clock = clock
        self._command = command
        self._owner = ProcessId.of(os.getpid())
        self._supervised: dict[str, SupervisedTask] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def take_over(self) -> int:
        """Stop the processes that an earlier orchestrator left running, and forget the results of its tasks.

        Returns:
            The number of processes stopped.

        Raises:
            ConfigError: the folder cannot be written.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            folders = [TaskFolder(path) for path in self._root.iterdir() if path.is_dir()]
            states = [state for folder in folders if (state := folder.read())]
            leaders = [state.process for state in states if state.process and state.phase.is_active]
            stopped = processes.stop_leftovers(leaders, marker=self._root, grace_s=_LEFTOVER_GRACE_S)
            for folder in folders:
                folder.forget()
        except OSError as error:
            raise unwritable(self._root, f"cannot be used: {error.strerror}", field="state-dir") from error
        return stopped

    @override
    def capacity(self) -> int:
        return self._allotment.slots

    @override
    def render(self, task: Task) -> Mapping[str, Any]:
        launch = self._launch(task, self._folder(task.name), slots=tuple(range(task.slots)))
        return {
            "name": task.name,
            "command": launch.command,
            "environment": dict(launch.environment),
            "slots": task.slots,
            "max_attempts": task.max_attempts,
            "timeout_s": task.timeout_s,
            "request": self._complete(task.request, ports=None).model_dump(mode="json", exclude_none=True),
        }

    @override
    def submit(self, task: Task) -> None:
        if self.observe([task.name])[task.name].phase is not Phase.ABSENT:
            return
        state = TaskState(
            phase=Phase.PENDING,
            submitted=time.time(),
            owner=self._owner,
            ports=self._free_ports(task) if task.is_server else None,
            slots=self._free_slots(task),
        )
        folder = self._folder(task.name)
        request = self._complete(task.request, ports=state.ports)
        write_atomically(folder.request_file, request.model_dump_json(indent=2, exclude_none=True).encode())
        launch = self._launch(task, folder, slots=state.slots)
        self._supervised[task.name] = SupervisedTask(task, folder, state, launch, self._clock)

    @override
    def observe(self, names: Iterable[str]) -> Mapping[str, Observation]:
        return {name: self._observe(name) for name in names}

    def advance(self) -> None:
        """Notice which attempts have ended, start those that are due, and end those past their deadlines.

        Called before every observation: nothing else does what a cluster does by itself.
        """
        for supervised in self._supervised.values():
            supervised.poll()

    @override
    def endpoint(self, name: str) -> str:
        """Return the URL of a server.

        Raises:
            PermanentError: there is no such server.
        """
        state = self._folder(name).read()
        if state is None or state.ports is None:
            raise PermanentError(f"there is no server {name} under {self._root}")
        return f"http://{LOOPBACK}:{state.ports[0]}"

    @override
    def logs(self, name: str, *, tail: int) -> str:
        return self._folder(name).tail(tail)

    @override
    def delete(self, name: str) -> None:
        folder = self._folder(name)
        supervised = self._supervised.pop(name, None)
        if supervised is not None:
            supervised.stop()
        elif (state := folder.read()) and state.phase.is_active and state.process:
            processes.stop_leftovers([state.process], marker=folder.path, grace_s=STOP_GRACE_S)
        folder.forget()

    def stop_all(self) -> None:
        """Stop all running tasks of this runtime together; it keeps the state of those that have ended."""
        active = [each for each in self._supervised.values() if each.state.phase.is_active]
        processes.stop_children((each.child for each in active if each.child), grace_s=STOP_GRACE_S)
        for each in active:
            self._supervised.pop(each.task.name)
            each.folder.forget()
        if active:
            processes.kill_strays(self._root)

    def _observe(self, name: str) -> Observation:
        supervised = self._supervised.get(name)
        if supervised is None:
            return _observe_from_file(self._folder(name))
        return _observation(supervised.state, supervised.folder)

    def _complete(self, request: TaskRequest, *, ports: tuple[int, int] | None) -> TaskRequest:
        """Return the request with the fields that depend on this machine."""
        if isinstance(request, TrainRequest | ForeignTrainRequest):
            shares = {"threads": self._allotment.threads, "side_by_side": self._allotment.side_by_side}
            return request.model_copy(update=shares)
        if isinstance(request, EvaluateRequest | CheckRequest | ImportRequest):
            return request.model_copy(update={"threads": 1})
        if isinstance(request, ServeRequest) and ports is not None:
            return request.model_copy(update={"host": LOOPBACK, "port": ports[0], "vllm_port": ports[1]})
        return request

    def _launch(self, task: Task, folder: TaskFolder, *, slots: tuple[int, ...]) -> Launch:
        environment = {TASK_DIR_VARIABLE: str(folder.path)}
        if threads := self._complete(task.request, ports=None).threads:
            environment[THREADS_VARIABLE] = str(threads)
        if self._allotment.devices:
            environment[GPUS_VARIABLE] = ",".join(self._allotment.devices[slot] for slot in slots)
        command = [*self._command(task.service), str(folder.request_file), WORK_DIR_OPTION, str(folder.work_dir)]
        return Launch(command=command, environment=environment)

    def _free_ports(self, task: Task) -> tuple[int, int]:
        """Choose ports that no other server here has, whether or not it listens yet."""
        taken = {port for each in self._supervised.values() for port in each.state.ports or ()}
        return free_ports(LOOPBACK, seed=f"{self._root}/{task.name}", taken=taken)

    def _free_slots(self, task: Task) -> tuple[int, ...]:
        active = [each.state for each in self._supervised.values() if each.state.phase.is_active]
        taken = {slot for state in active for slot in state.slots}
        free = [slot for slot in range(self._allotment.slots) if slot not in taken]
        if len(free) < task.slots:
            raise PermanentError(f"{task.name} needs {_slots(task.slots)}; {len(free)} of {self._allotment.slots} free")
        return tuple(free[: task.slots])

    def _folder(self, name: str) -> TaskFolder:
        return TaskFolder(self._root / name)


def _slots(number: int) -> str:
    return "a slot" if number == 1 else f"{number} slots"


def _observe_from_file(folder: TaskFolder) -> Observation:
    """Return the state of a task of another orchestrator from its state file."""
    state = folder.read()
    if state is None:
        return ABSENT
    alive = state.process.find() if state.process else state.owner.find()
    if state.phase.is_active and alive is None:
        return ABSENT
    return _observation(state, folder)


def _observation(state: TaskState, folder: TaskFolder) -> Observation:
    return Observation(
        phase=state.phase,
        attempt=state.attempt,
        reason=state.reason,
        message=state.message,
        progress=state.progress or read_progress(folder.work_dir),
        elapsed_s=(state.ended or time.time()) - state.submitted,
    )
