"""The processes of a training run on several GPUs: started, monitored and ended together.

The trainer's own process computes nothing then. It starts one process for each GPU, with the same request and a number
(its rank), and ends as they do: once all have succeeded, or as soon as one has failed. It passes SIGTERM on, whereupon
they store a checkpoint together. The kernel ends them if this process is killed
(:func:`surogate_bench.processes.service.die_with_parent`).
"""

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from surogate_bench.contract import (
    GPUS_VARIABLE,
    KILLED,
    METRICS_PORT_VARIABLE,
    PARENT_PID_VARIABLE,
    REQUEST_FILE,
    TERMINATION_LOG_VARIABLE,
    THREADS_VARIABLE,
    WORK_DIR_OPTION,
    Service,
    killed_by,
)
from surogate_bench.errors import ConfigError, ExitCode, ProcessFailedError
from surogate_bench.files import write_atomically
from surogate_bench.processes.progress import Termination, read_termination
from surogate_bench.stages.requests import TrainRequest

_log = logging.getLogger(__name__)

RANKS_FOLDER = "ranks"
"""Folder in the training's work folder, with one for each process."""
RENDEZVOUS_FILE = "rendezvous"
PEER_LOST = "PeerLostError"
"""Reason of a process that ended because another one did."""
_POLL_S = 0.1
_SETTLE_S = 5.0
"""After a first failure: enough for the others to notice it, and to report why they fail, if they do by themselves."""
_STOP_S = 60.0
"""After SIGTERM: enough for a micro-batch and a checkpoint; runtimes kill earlier."""
_KILL_WAIT_S = 10.0
_NOT_SHARED = (METRICS_PORT_VARIABLE, TERMINATION_LOG_VARIABLE)
"""Variables that only one process can use."""


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How a process ended."""

    rank: int
    code: int | None
    """Exit code, negative for a signal; None while it runs."""
    termination: Termination | None
    """What it reported."""


@dataclass(frozen=True, slots=True)
class _Rank:
    number: int
    folder: Path
    child: "subprocess.Popen[bytes]"

    def end(self) -> RankEnd:
        return RankEnd(self.number, self.child.poll(), read_termination(self.folder))


def train_together(request: TrainRequest, work_dir: Path) -> None:
    """Train one adapter with the number of processes that the sweep asks for.

    Raises:
        ConfigError: fewer GPUs are visible.
        ProcessFailedError: a process failed; all have ended.
        Terminated: SIGTERM arrived; all have ended, after storing a checkpoint if they could.
    """
    number, folder = request.sweep.training.gpus, work_dir / RANKS_FOLDER
    devices = [visible_device(os.environ.get(GPUS_VARIABLE), rank, number) for rank in range(number)]
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
    threads = threads_of_each(request.threads, number)
    ranks: list[_Rank] = []
    try:
        for rank, device in enumerate(devices):
            own = request.model_copy(update={"rank": rank, "threads": threads})
            ranks.append(_start(own, rank, folder / str(rank), _environment(os.environ, device, threads)))
        _wait_for_success(ranks)
    finally:
        _stop(ranks)


def visible_device(visible: str | None, rank: int, processes: int) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES for one process, so that its GPU is the first to torch.

    Args:
        visible: The variable's value here; None if it is not set and every GPU is visible.
        rank: The process.
        processes: Number of processes.

    Raises:
        ConfigError: fewer devices are visible than there are processes; none at all means the CPU.
    """
    if visible is None:
        return str(rank)
    names = [name.strip() for name in visible.split(",") if name.strip() not in {"", "-1"}]
    if names and len(names) < processes:
        raise ConfigError(
            f"only {len(names)} GPUs are visible ({GPUS_VARIABLE}={visible})",
            field="training.gpus",
            value=processes,
            remedy="Give the run as many GPUs, or lower training.gpus.",
        )
    return names[rank] if names else ""


def threads_of_each(threads: int | None, processes: int) -> int:
    """Divide the CPU threads of a training run (all cores if None) among its processes."""
    return max(1, (threads or len(os.sched_getaffinity(0))) // processes)


def failure_of(ends: Sequence[RankEnd]) -> ProcessFailedError:
    """Return why a training run failed, from how its processes ended, one of them not with 0.

    The one that failed by itself is to blame: before those that it took along, and before one that does not respond.
    """
    failed = [end for end in ends if end.code]
    by_itself = [end for end in failed if not _was_taken_along(end)]
    blamed = next((end for end in by_itself if end.termination), None) or next(iter(by_itself), None)
    hung = [end.rank for end in ends if end.code is None]
    if blamed is None and hung and any(end.termination for end in failed):
        return _failure(
            f"process {hung[0]} of {len(ends)} does not respond, while the others wait for it",
            PEER_LOST,
            ExitCode.TRANSIENT,
        )
    blamed = blamed or failed[0]
    name = f"process {blamed.rank} of {len(ends)}"
    if blamed.termination is not None:
        code = ExitCode(blamed.code) if blamed.code in set(ExitCode) else ExitCode.FAILED
        return _failure(f"{name}: {blamed.termination.message}", blamed.termination.reason, code)
    return _unreported(name, blamed.code or 0)


def _unreported(name: str, code: int) -> ProcessFailedError:
    if code < 0:
        return _failure(f"{name} was {killed_by(-code)}", KILLED, ExitCode.FAILED)
    if code == ExitCode.TRANSIENT:
        return _failure(f"{name} received SIGTERM; another attempt will continue", KILLED, ExitCode.TRANSIENT)
    return _failure(f"{name} ended with exit code {code}", KILLED, ExitCode.FAILED)


def _failure(message: str, reason: str, code: ExitCode) -> ProcessFailedError:
    return ProcessFailedError(message, reason=reason, exit_code=code)


def _was_taken_along(end: RankEnd) -> bool:
    if end.termination is not None:
        return end.termination.reason == PEER_LOST
    return end.code == ExitCode.TRANSIENT


def _environment(inherited: Mapping[str, str], device: str, threads: int) -> dict[str, str]:
    kept = {name: value for name, value in inherited.items() if name not in _NOT_SHARED}
    own = {PARENT_PID_VARIABLE: str(os.getpid()), GPUS_VARIABLE: device, THREADS_VARIABLE: str(threads)}
    return {"GLOO_SOCKET_IFNAME": "lo"} | kept | own  # the address of a host's name may not lead back to it


def _start(request: TrainRequest, rank: int, folder: Path, environment: Mapping[str, str]) -> _Rank:
    folder.mkdir(parents=True)
    file = folder / REQUEST_FILE
    write_atomically(file, request.model_dump_json(exclude_none=True).encode())
    command = [sys.executable, "-P", "-m", Service.TRAINER.module, str(file), WORK_DIR_OPTION, str(folder)]
    return _Rank(rank, folder, subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL))


def _wait_for_success(ranks: Sequence[_Rank]) -> None:
    """Wait until all have ended with 0; no deadline here, as they have one for each wait, and the task has its own.

    Raises:
        ProcessFailedError: one has not.
    """
    while any(rank.child.poll() is None for rank in ranks) and not _any_failed(ranks):
        time.sleep(_POLL_S)
    if _any_failed(ranks):
        _wait(ranks, _SETTLE_S)
        raise failure_of([rank.end() for rank in ranks])


def _any_failed(ranks: Sequence[_Rank]) -> bool:
    return any(rank.child.poll() for rank in ranks)


def _stop(ranks: Sequence[_Rank]) -> None:
    """End what still runs: with SIGTERM if nothing has failed, as then all can agree on a checkpoint."""
    if not _any_failed(ranks):
        for rank in ranks:
            rank.child.terminate()
        _wait(ranks, _STOP_S)
    for rank in ranks:
        if rank.child.poll() is None:
            _log.warning("killing process %d", rank.number)
            rank.child.kill()
    _wait(ranks, _KILL_WAIT_S)


def _wait(ranks: Sequence[_Rank], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(rank.child.poll() is None for rank in ranks) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
