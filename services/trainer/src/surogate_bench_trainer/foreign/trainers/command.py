"""Run the command of a foreign trainer: its log lines are forwarded, and it ends with this process or its deadline."""

import logging
import os
import re
import resource
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

from surogate_bench.contract import HUB_TOKEN_VARIABLE, STORE_VARIABLES, TASK_DIR_VARIABLE, VARIABLE_PREFIX
from surogate_bench.errors import printable, shorten
from surogate_bench.processes.logs import redact

_log = logging.getLogger(__name__)

_POLL_S = 0.25
_GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""
_LONGEST_LINE = 2000
_LAST_LINES = 12
_LINE_END = re.compile(rb"[\r\n]+")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_WITHHELD = (*STORE_VARIABLES.values(), HUB_TOKEN_VARIABLE, "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
"""Credentials of store and hub, which the trainer does not need: it gets local files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int | None
    """Exit code, negative for a signal; None if its deadline passed."""
    seconds: float
    last_lines: str
    """Last lines of its output, shortened and without secrets."""
    peak_memory_bytes: int
    """Largest resident set of one of its processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is started, and for how long."""

    arguments: list[str]
    environment: Mapping[str, str]
    folder: Path
    """Current folder."""
    timeout_s: float


def trainer_environment(inherited: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a foreign trainer: that of this process without credentials, plus additional variables.

    The variable that marks the task is kept, by which an orchestrator finds processes that outlived their service.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(_WITHHELD) and (name == TASK_DIR_VARIABLE or not name.startswith(VARIABLE_PREFIX))
    }
    return kept | dict(added)


def run_command(command: Command, *, between: Callable[[], None]) -> Ended:
    """Run a command to its end, in a process group of its own that never outlives this call.

    Args:
        command: What to run.
        between: Called a few times per second meanwhile.

    Raises:
        OSError: it could not be started.
        BaseException: what ``between`` or a signal handler raises; the command has been killed then.
    """
    began = time.monotonic()
    child = subprocess.Popen(
        command.arguments,
        env=dict(command.environment),
        cwd=command.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert child.stdout is not None  # noqa: S101 - a pipe was asked for
    lines = deque[str](maxlen=_LAST_LINES)
    reader = Thread(target=_forward, args=(child.stdout, lines), daemon=True)
    try:
        reader.start()
        in_time = _wait(child, began + command.timeout_s, between)
    finally:
        _stop_group(child)
        reader.join(_GRACE_S)  # a process that left the group may still hold the pipe
    return Ended(
        code=child.returncode if in_time else None,
        seconds=time.monotonic() - began,
        last_lines="\n".join(lines),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    )


def _wait(child: "subprocess.Popen[bytes]", deadline: float, between: Callable[[], None]) -> bool:
    """Wait for the end; False if the deadline passed before."""
    while _is_running(child):
        between()
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _is_running(child: "subprocess.Popen[bytes]") -> bool:
    """Return whether a command runs; a dead one is not waited for, so that it still holds the id of its group."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _stop_group(child: "subprocess.Popen[bytes]") -> None:
    """End what still runs of the group: SIGTERM and SIGKILL for the command, SIGKILL for what it left running."""
    if _is_running(child):
        _signal_group(child.pid, signal.SIGTERM)
        _wait(child, time.monotonic() + _GRACE_S, lambda: None)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # nothing of it is left
        return


def _forward(pipe: IO[bytes], lines: deque[str]) -> None:
    with pipe:
        for raw in _lines(pipe):
            line = printable(_COLOUR.sub("", redact(raw.decode(errors="replace")))).strip()
            if line:
                lines.append(shorten(line))
                _log.info("%s", shorten(line, _LONGEST_LINE))


def _lines(pipe: IO[bytes]) -> Iterator[bytes]:
    """Yield lines, which carriage returns end too (progress bars); a very long one in pieces."""
    left = b""
    while chunk := os.read(pipe.fileno(), 1 << 16):
        *lines, left = _LINE_END.split(left + chunk)
        yield from lines
        if len(left) > 1 << 20:
            yield left
            left = b""
    yield left
