"""The CPU's losses: the same train stages in a child process without a GPU, which runs along with the first checks."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from surogate_bench.contract import GPUS_VARIABLE, LOG_FILE, OUTPUT_OPTION, PARENT_PID_VARIABLE
from surogate_bench.errors import PermanentError
from surogate_bench.machine.checks import REPORT_JSON, Outcome, read_report

_POLL_S = 0.5
_STOP_S = 10.0


class CpuReference:
    """The child process, for as long as the context lasts.

    Args:
        folder: Folder of its report and log.
        arguments: Arguments of :mod:`surogate_bench_trainer.gpu_check` that select the train stages.
        deadline: Value of ``time.monotonic`` after which nothing is waited for.
    """

    def __init__(self, folder: Path, arguments: list[str], *, deadline: float) -> None:
        self._folder = folder
        self._arguments = arguments
        self._deadline = deadline
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / REPORT_JSON).unlink(missing_ok=True)  # of an earlier run
        environment = os.environ | {GPUS_VARIABLE: "", PARENT_PID_VARIABLE: str(os.getpid())}
        command = [sys.executable, "-m", __package__ or "", OUTPUT_OPTION, str(self._folder), *self._arguments]
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    @property
    def _log(self) -> Path:
        return self._folder / LOG_FILE

    def losses(self, check: str, sleep: Callable[[float], None] = time.sleep) -> tuple[float, ...]:
        """Wait for a check of the child, and return its losses.

        Raises:
            PermanentError: the check failed, the child ended without it, or time ran out.
        """
        while True:
            ended = self._child is None or self._child.poll() is not None
            report = read_report(self._folder)
            for found in report.checks if report else ():
                if found.name == check:
                    if found.outcome is not Outcome.PASSED:
                        raise PermanentError(f"on the CPU: {found.reason}")
                    return found.losses
            if ended:
                raise PermanentError(f"the process that computes the CPU's losses has ended; see {self._log}")
            if time.monotonic() >= self._deadline:
                raise PermanentError("the CPU's losses took longer than the time limit")
            sleep(_POLL_S)
