"""The comparison of engines with their formulas, in a process of the trainer service."""

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from surogate_bench.contract import (
    GPU_CHECK_MODULE,
    GROUPS_OPTION,
    LOG_FILE,
    MINUTES_OPTION,
    OUTPUT_OPTION,
    PARENT_PID_VARIABLE,
    THREADS_OPTION,
)
from surogate_bench.machine.checks import ENGINES, CheckReport, read_report
from surogate_bench.processes.progress import read_termination
from surogate_bench_orchestrator.cli.signals import StopRequest, stop_on_signals
from surogate_bench_orchestrator.runtimes.local.processes import (
    child_environment,
    exit_code_of,
    start,
    stop_children,
)

_MINUTES = 6.0
_TIMEOUT_S = 420.0
_POLL_S = 0.1
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class EngineCheck:
    """Result of the process."""

    report: CheckReport | None
    failure: str = ""
    """Why the report is missing or not complete."""


def check_engines() -> EngineCheck:
    """Run the process to its end.

    Raises:
        Interrupted: a signal requested a stop; the process is stopped.
    """
    with tempfile.TemporaryDirectory(prefix="surogate-bench-doctor-") as name, stop_on_signals() as stop:
        folder = Path(name)
        arguments = [OUTPUT_OPTION, name, GROUPS_OPTION, ENGINES, THREADS_OPTION, "1", MINUTES_OPTION, str(_MINUTES)]
        child = start(
            [sys.executable, "-m", GPU_CHECK_MODULE, *arguments],
            environment=child_environment(os.environ, {PARENT_PID_VARIABLE: str(os.getpid())}),
            log=folder / LOG_FILE,
        )
        try:
            ended = _wait(child, stop)
        finally:
            stop_children([child], grace_s=_GRACE_S)
        report = read_report(folder)
        if report is not None and report.complete:
            return EngineCheck(report)
        return EngineCheck(report, _failure(folder) if ended else f"it took longer than {_TIMEOUT_S:.0f} s")


def _wait(child: "Popen[bytes]", stop: StopRequest) -> bool:
    """Return whether the process has ended in time."""
    deadline = time.monotonic() + _TIMEOUT_S
    while exit_code_of(child) is None:
        stop.check()
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _failure(folder: Path) -> str:
    termination = read_termination(folder)
    if termination is not None:
        return termination.message
    lines = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a message")
