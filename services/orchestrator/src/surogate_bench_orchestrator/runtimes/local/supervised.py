"""Run one task as a process: attempts, deadline and result."""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from surogate_bench.contract import EXITED, KILLED, PARENT_PID_VARIABLE, PROGRESS_FILE, TERMINATION_FILE, killed_by
from surogate_bench.errors import FINAL_EXIT_CODES, ExitCode
from surogate_bench.processes.progress import Activity, read_progress, read_termination
from surogate_bench_orchestrator.domain.tasks import DEADLINE_EXCEEDED, Phase, Task, overdue
from surogate_bench_orchestrator.ports import Clock
from surogate_bench_orchestrator.runtimes.local import processes
from surogate_bench_orchestrator.runtimes.local.processes import ProcessId
from surogate_bench_orchestrator.runtimes.local.state import TaskFolder, TaskState

STOP_GRACE_S = 20.0
"""Between SIGTERM and SIGKILL: vLLM takes a few seconds to stop."""

_BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Seconds before the second, third, … attempt; the last value is repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Command and environment of a task."""

    command: list[str]
    environment: Mapping[str, str]
    """Variables in addition to those that are passed on."""


class SupervisedTask:
    """Runs a task until it succeeds, fails for good, or is stopped; :meth:`poll` starts, ends and records attempts.

    Args:
        task: The task.
        folder: Its files; the request must exist.
        state: Its initial state, PENDING.
        launch: How to start an attempt.
        clock: For the deadline and the back-off.
    """

    def __init__(self, task: Task, folder: TaskFolder, state: TaskState, launch: Launch, clock: Clock) -> None:
        self.task = task
        self.folder = folder
        self.state = state
        self._launch = launch
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._deadline = clock.now() + task.timeout_s
        self._retry_at = clock.now()
        self._failures = 0
        self._was_ready = False
        self.poll()

    @property
    def child(self) -> subprocess.Popen[bytes] | None:
        """Return the process of the current attempt."""
        return self._child

    def poll(self) -> None:
        """Check the process, start an attempt that is due, and end one that is past its deadline."""
        if not self.state.phase.is_active:
            return
        now = self._clock.now()
        code = processes.exit_code_of(self._child) if self._child else None
        if code is not None:
            self._attempt_ended(code, now)
        elif self.task.is_server and self._child is not None:
            self._watch_readiness(now)
        if self._is_late(now):
            self._give_up()
        elif self.state.phase is Phase.PENDING and self._child is None and now >= self._retry_at:
            self._start_attempt()

    def stop(self) -> None:
        """Stop the process, and everything that it started."""
        if self._child is not None:
            processes.stop_children([self._child], grace_s=STOP_GRACE_S)
            processes.kill_strays(self.folder.path)

    def _start_attempt(self) -> None:
        self.folder.work_dir.mkdir(parents=True, exist_ok=True)
        for name in (PROGRESS_FILE, TERMINATION_FILE):
            (self.folder.work_dir / name).unlink(missing_ok=True)
        added = {**self._launch.environment, PARENT_PID_VARIABLE: str(os.getpid())}
        environment = processes.child_environment(os.environ, added)
        self._child = processes.start(self._launch.command, environment=environment, log=self.folder.log_file)
        self._was_ready = False
        self._record(
            phase=Phase.PENDING if self.task.is_server else Phase.RUNNING,
            attempt=self.state.attempt + 1,
            process=ProcessId.of(self._child.pid),
        )

    def _watch_readiness(self, now: float) -> None:
        """Set a server RUNNING while it reports that it is ready; its deadline restarts when it stops being ready."""
        progress = read_progress(self.folder.work_dir)
        ready = progress is not None and progress.phase == Activity.READY
        if ready != (self.state.phase is Phase.RUNNING):
            self._was_ready |= ready
            self._deadline = now + self.task.timeout_s
            self._record(phase=Phase.RUNNING if ready else Phase.PENDING)

    def _is_late(self, now: float) -> bool:
        is_ready_server = self.task.is_server and self.state.phase is Phase.RUNNING
        return self.state.phase.is_active and not is_ready_server and now >= self._deadline

    def _give_up(self) -> None:
        self.stop()
        message = overdue(self.task.timeout_s, is_server=self.task.is_server)
        self._end(Phase.FAILED, reason=DEADLINE_EXCEEDED, message=message)

    def _attempt_ended(self, code: int, now: float) -> None:
        self._child = None
        if code == ExitCode.OK and not self.task.is_server:
            self._end(Phase.SUCCEEDED, reason="", message="")
            self.folder.drop_scratch()
            return
        processes.kill_strays(self.folder.path)
        reason, message = _explain(self.folder, code)
        self._failures = 1 if self._was_ready else self._failures + 1
        if code in FINAL_EXIT_CODES or self._failures >= self.task.max_attempts:
            self._end(Phase.FAILED, reason=reason, message=message, exit_code=code)
            return
        self._retry_at = now + _BACKOFF_S[min(self._failures, len(_BACKOFF_S)) - 1]
        if self.task.is_server:
            self._deadline = self._retry_at + self.task.timeout_s
        self._record(phase=Phase.PENDING, process=None, exit_code=code, reason=reason, message=message)

    def _end(self, phase: Phase, **how: object) -> None:
        self._child = None
        last = read_progress(self.folder.work_dir)
        self._record(phase=phase, process=None, ended=time.time(), progress=last, **how)

    def _record(self, **changes: object) -> None:
        self.state = self.state.model_copy(update=changes)
        self.folder.write(self.state)


def _explain(folder: TaskFolder, code: int) -> tuple[str, str]:
    """Return reason and message of a failed attempt: those that the service reported, or else how the process ended."""
    if termination := read_termination(folder.work_dir):
        return termination.reason, termination.message
    if code < 0:
        return KILLED, killed_by(-code)
    last = folder.tail(1)
    return EXITED, f"exit code {code}" + (f"; its log ends: {last[:500]}" if last else "")
