"""Start, observe and stop child processes, each in a session of its own, with all of their descendants.

A process is identified by pid and creation time together, because pids are reused.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from surogate_bench.contract import (
    METRICS_PORT_VARIABLE,
    STORE_VARIABLES,
    TASK_DIR_VARIABLE,
    TERMINATION_LOG_VARIABLE,
    TRANSFORMERS_OFFLINE_VARIABLE,
    VARIABLE_PREFIX,
)

_POLL_S = 0.05
_KILL_WAIT_S = 10.0
_CLOCK_SLACK_S = 2.0
"""Creation times are relative to boot, whose time shifts when the clock is set; pids are not reused so soon."""
_PASSED_VARIABLES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    TRANSFORMERS_OFFLINE_VARIABLE,
})  # fmt: skip
_PASSED_PREFIXES = (
    *STORE_VARIABLES.values(), "HF_", "HUGGINGFACE_", "LC_", "CUDA_", "NVIDIA_", "NCCL_", "TORCH", "TRITON_", "VLLM_",
    VARIABLE_PREFIX, "XDG_", "OMP_", "MKL_", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "COVERAGE_",
)  # fmt: skip
_NOT_PASSED = frozenset({METRICS_PORT_VARIABLE, TERMINATION_LOG_VARIABLE})
"""Variables that services cannot share."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """Identity of a process that a later one with the same pid does not have; ``created`` is in seconds since 1970."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """Return the identity of a live process, or of a dead one that has not been waited for."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """Return the process; None if it does not exist any more or is a zombie."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < _CLOCK_SLACK_S
            if not same or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.NoSuchProcess:
            return None
        return process


def child_environment(environment: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service: variables for programs, files, credentials and devices, and those added."""
    passed = {
        name: value
        for name, value in environment.items()
        if name in _PASSED_VARIABLES or (name.startswith(_PASSED_PREFIXES) and name not in _NOT_PASSED)
    }
    return passed | {"PYTHONUNBUFFERED": "1"} | dict(added)


def start(command: list[str], *, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in a new session, its output appended to ``log``.

    Call it from the main thread: Linux ties "die with the parent" to the thread that started the child.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def exit_code_of(child: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code of a child that has ended, and kill the rest of its process group; None while it runs.

    The group is signalled while the dead leader still holds its id, so no other process can be hit.
    """
    if child.returncode is None:
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        _signal_group(child.pid, signal.SIGKILL)
        child.wait()
    return child.returncode


def stop_children(children: Iterable[subprocess.Popen[bytes]], *, grace_s: float) -> None:
    """Terminate children together (SIGTERM), and kill their process groups after ``grace_s`` seconds."""
    running = [child for child in children if exit_code_of(child) is None]
    for child in running:
        child.terminate()
    deadline = time.monotonic() + grace_s
    while running and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        running = [child for child in running if exit_code_of(child) is None]
    for child in running:
        _signal_group(child.pid, signal.SIGKILL)
        child.wait(_KILL_WAIT_S)


def stop_leftovers(leaders: Iterable[ProcessId], *, marker: Path, grace_s: float) -> int:
    """Stop processes of an orchestrator that has ended: leaders, and processes marked with a folder below ``marker``.

    Returns:
        The number of processes.
    """
    found = {process for leader in leaders if (process := leader.find())}
    for process in found:
        _ignoring_the_dead(process.terminate)
    alive = _wait(found, timeout_s=grace_s)
    strays = _marked(marker) - set(alive)
    for process in (*alive, *strays):
        _ignoring_the_dead(process.kill)
    _wait(alive | strays, timeout_s=_KILL_WAIT_S)
    return len(found | strays)


def kill_strays(marker: Path) -> None:
    """Kill the processes that a task has started in other sessions and that still run."""
    strays = _marked(marker)
    for process in strays:
        _ignoring_the_dead(process.kill)
    _wait(strays, timeout_s=_KILL_WAIT_S)


def _wait(processes: set[psutil.Process], *, timeout_s: float) -> set[psutil.Process]:
    """Wait for processes to end, and return those that still run.

    A zombie has ended: where its parent never waits for it, as process 1 of many containers, it stays.
    """
    deadline = time.monotonic() + timeout_s
    while (alive := {each for each in processes if not _has_ended(each)}) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return alive


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _marked(folder: Path) -> set[psutil.Process]:
    """Return the processes with the mark, and those in their sessions that have overwritten it with a title."""
    processes = list(psutil.process_iter())
    marked = {process for process in processes if _has_mark(process, folder)}
    sessions = {_session_of(process) for process in marked} - {None, os.getsid(0)}
    return marked | {process for process in processes if _session_of(process) in sessions and not _has_ended(process)}


def _has_mark(process: psutil.Process, folder: Path) -> bool:
    try:
        mark = process.environ().get(TASK_DIR_VARIABLE)
    except (psutil.Error, OSError):  # another user's, or ended meanwhile
        return False
    return mark is not None and Path(mark).is_relative_to(folder) and process.pid != os.getpid()


def _session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # empty but for the zombie leader
        return


def _ignoring_the_dead(call: Callable[[], None]) -> None:
    try:
        call()
    except psutil.NoSuchProcess:
        return
