"""Files of a local task: a folder for each, whose state file is replaced atomically.

::

    <root>/<task>/state.json    phase, attempt, process, ports, reason and message of a failure
    <root>/<task>/request.json  request of the service
    <root>/<task>/log.txt       output of all attempts
    <root>/<task>/work          scratch files, progress.json and termination.json
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from surogate_bench.contract import LOG_FILE, REQUEST_FILE
from surogate_bench.files import write_atomically
from surogate_bench.processes.progress import Progress
from surogate_bench_orchestrator.domain.tasks import Phase
from surogate_bench_orchestrator.runtimes.local.processes import ProcessId


class TaskState(BaseModel):
    """State of one task; times are in seconds since 1970."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    phase: Phase
    attempt: int = 0
    submitted: float
    ended: float | None = None
    owner: ProcessId
    """The orchestrator that runs it."""
    process: ProcessId | None = None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    progress: Progress | None = None
    """Last progress of a task that has ended."""
    ports: tuple[int, int] | None = None
    """Ports of a server: control API and vLLM."""
    slots: tuple[int, ...] = ()
    """Indices of the slots that it holds or held."""


@dataclass(frozen=True, slots=True)
class TaskFolder:
    """Files of one task."""

    path: Path

    @property
    def state_file(self) -> Path:
        """Return the path of the state file."""
        return self.path / "state.json"

    @property
    def request_file(self) -> Path:
        """Return the path of the request."""
        return self.path / REQUEST_FILE

    @property
    def log_file(self) -> Path:
        """Return the path of the log."""
        return self.path / LOG_FILE

    @property
    def work_dir(self) -> Path:
        """Return the scratch folder."""
        return self.path / "work"

    def read(self) -> TaskState | None:
        """Read the state; None if there is none, or if it cannot be parsed."""
        try:
            return TaskState.model_validate_json(self.state_file.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, state: TaskState) -> None:
        """Replace the state."""
        write_atomically(self.state_file, state.model_dump_json(exclude_none=True).encode())

    def forget(self) -> None:
        """Remove the state and the scratch files; the log stays."""
        self.state_file.unlink(missing_ok=True)
        self.request_file.unlink(missing_ok=True)
        self.drop_scratch()

    def drop_scratch(self) -> None:
        """Remove the scratch files."""
        shutil.rmtree(self.work_dir, ignore_errors=True)

    def tail(self, lines: int) -> str:
        """Return the last lines of the log, at most 256 KiB."""
        try:
            with self.log_file.open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - 2**18))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
