"""Makes reports in child processes, one at a time, while other sweeps are reconciled."""

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import IO

from surogate_bench.contract import PARENT_PID_VARIABLE
from surogate_bench_orchestrator.controller.reports.process import ReportRequest

_log = logging.getLogger(__name__)

_DEADLINE_S = 600.0
_TRIES = 3
_COMMAND = (sys.executable, "-P", "-m", "surogate_bench_orchestrator.controller.reports.process")


class ReportState(Enum):
    """State of a report."""

    WORKING = auto()
    DONE = auto()
    GIVEN_UP = auto()


@dataclass(frozen=True, slots=True)
class ReportStatus:
    """State of a report, and why the last attempt failed."""

    state: ReportState = ReportState.WORKING
    message: str = ""
    failed_tries: int = 0


@dataclass(frozen=True, slots=True)
class _Job:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    started: float


class ReportMaker:
    """Makes one report at a time.

    Args:
        command: Makes one report.
        clock: Monotonic clock, seconds.
    """

    def __init__(self, command: tuple[str, ...] = _COMMAND, clock: Callable[[], float] = time.monotonic) -> None:
        self._command = command
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        """Jobs by key; at most one runs."""
        self._statuses: dict[str, ReportStatus] = {}

    def make(self, key: str, request: ReportRequest) -> None:
        """Start a report, unless it or another one is being made; to be called again until it has ended.

        Args:
            key: Identity of the sweep.
            request: The report.
        """
        with self._lock:
            for ended in [each for each, job in self._jobs.items() if self._has_ended(job)]:
                self._finish(ended)
            status = self._statuses.setdefault(key, ReportStatus())
            if status.state is ReportState.WORKING and not self._jobs:
                self._jobs[key] = self._start(request)

    def status(self, key: str) -> ReportStatus:
        """Return the status of a report, as of the last call of :meth:`make`."""
        with self._lock:
            return self._statuses.get(key, ReportStatus())

    def forget(self, key: str) -> None:
        """Stop making a report, and forget its status; does nothing if it is unknown."""
        with self._lock:
            self._statuses.pop(key, None)
            if job := self._jobs.pop(key, None):
                _end(job)

    def stop(self) -> None:
        """Stop all reports; another controller makes them again."""
        with self._lock:
            for job in self._jobs.values():
                _end(job)
            self._jobs.clear()

    def _start(self, request: ReportRequest) -> _Job:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the job
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, PARENT_PID_VARIABLE: str(os.getpid())},
        )
        assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        threading.Thread(
            target=_feed, args=(process.stdin, request.model_dump_json().encode()), daemon=True, name="report-input"
        ).start()
        return _Job(process, errors, self._clock())

    def _has_ended(self, job: _Job) -> bool:
        return job.process.poll() is not None or self._clock() - job.started >= _DEADLINE_S

    def _finish(self, key: str) -> None:
        """Record the outcome of a job that has ended or is past its deadline."""
        job = self._jobs.pop(key)
        code = job.process.poll()
        if code == 0:
            self._statuses[key] = ReportStatus(ReportState.DONE)
        else:
            message = f"not ready within {_DEADLINE_S:g} s" if code is None else _last_line(job.errors, code)
            _log.warning("the report of %s could not be made: %s", key, message)
            tries = self._statuses[key].failed_tries + 1
            state = ReportState.WORKING if tries < _TRIES else ReportState.GIVEN_UP
            self._statuses[key] = ReportStatus(state, message, tries)
        _end(job)


def _feed(pipe: IO[bytes], data: bytes) -> None:
    """Write to a child that may have ended, which its exit code shows."""
    try:
        with pipe:
            pipe.write(data)
    except BrokenPipeError:
        _log.debug("the report process ended before it read its request")


def _end(job: _Job) -> None:
    if job.process.poll() is None:
        job.process.kill()
    job.process.wait()
    job.errors.close()


def _last_line(errors: IO[bytes], code: int) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:1000] if lines else f"exit code {code}"
