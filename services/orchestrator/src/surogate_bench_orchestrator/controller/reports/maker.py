"""Reports are made in child processes, one after the other, while the loop goes on."""

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import IO

from surogate_bench.contract import PARENT_PID_VARIABLE
from surogate_bench_orchestrator.controller.reports.process import ReportRequest

_log = logging.getLogger(__name__)

_DEADLINE_S = 600.0
_ABANDONED_S = 30.0
"""Unless it is asked about meanwhile, a report is no longer wanted: its sweep was deleted."""
_TRIES = 3
_COMMAND = (sys.executable, "-P", "-m", "surogate_bench_orchestrator.controller.reports.process")


class ReportState(Enum):
    """How far a report is."""

    WORKING = auto()
    DONE = auto()
    GIVEN_UP = auto()


@dataclass(slots=True)
class _Job:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    started: float
    asked: float
    """When somebody last looked how far it is."""


@dataclass(slots=True)
class _Tries:
    failed: int = 0
    message: str = field(default="")


class ReportMaker:
    """Makes one report at a time.

    Args:
        command: What makes one.
        clock: Seconds that never go back.
    """

    def __init__(self, command: tuple[str, ...] = _COMMAND, clock: Callable[[], float] = time.monotonic) -> None:
        self._command = command
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        """By identity of the sweep; at most one."""
        self._tries: dict[str, _Tries] = {}

    def advance(self, key: str, request: ReportRequest) -> tuple[ReportState, str]:
        """Begin a report, or look how far it is; to be called again while it is WORKING.

        Args:
            key: The same for the same sweep.
            request: Which report.

        Returns:
            How far it is, and why the last try failed.
        """
        with self._lock:
            self._end_abandoned(but=key)
            job = self._jobs.get(key)
            tries = self._tries.setdefault(key, _Tries())
            if job is None:
                if not self._jobs:
                    self._jobs[key] = self._start(request)
                return ReportState.WORKING, tries.message
            job.asked = self._clock()
            code = job.process.poll()
            if code is None and job.asked - job.started < _DEADLINE_S:
                return ReportState.WORKING, tries.message
            del self._jobs[key]
            if code == 0:
                job.errors.close()
                del self._tries[key]
                return ReportState.DONE, ""
            return self._failed(key, job, code)

    def stop(self) -> None:
        """End what is being made; another controller makes it again."""
        with self._lock:
            for job in self._jobs.values():
                _end(job)
                job.errors.close()
            self._jobs.clear()

    def _end_abandoned(self, *, but: str) -> None:
        """Make room for others; one that is asked about again after all is made anew."""
        for key, job in list(self._jobs.items()):
            if key != but and self._clock() - job.asked > _ABANDONED_S:
                _end(job)
                job.errors.close()
                del self._jobs[key]
                self._tries.pop(key, None)

    def _start(self, request: ReportRequest) -> _Job:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the job
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, PARENT_PID_VARIABLE: str(os.getpid())},
        )
        job = _Job(process, errors, self._clock(), self._clock())
        assert process.stdin is not None  # noqa: S101 - for the type checker: it was asked for
        threading.Thread(
            target=_feed, args=(process.stdin, request.model_dump_json().encode()), daemon=True, name="report-input"
        ).start()
        return job

    def _failed(self, key: str, job: _Job, code: int | None) -> tuple[ReportState, str]:
        _end(job)
        tries = self._tries[key]
        tries.failed += 1
        tries.message = f"not ready within {_DEADLINE_S:g} s" if code is None else _tail(job.errors, code)
        job.errors.close()
        _log.warning("the report of %s could not be made: %s", key, tries.message)
        if tries.failed < _TRIES:
            return ReportState.WORKING, tries.message
        return ReportState.GIVEN_UP, self._tries.pop(key).message


def _feed(pipe: IO[bytes], data: bytes) -> None:
    """Write without waiting for a child that does not read; one that is gone shows by its exit code."""
    try:
        with pipe:
            pipe.write(data)
    except BrokenPipeError:
        _log.debug("the report process ended before it had read its request")


def _end(job: _Job) -> None:
    if job.process.poll() is None:
        job.process.kill()
    job.process.wait()


def _tail(errors: IO[bytes], code: int) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:1000] if lines else f"exit code {code}"
