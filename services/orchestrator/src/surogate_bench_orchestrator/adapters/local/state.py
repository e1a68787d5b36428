"""What the local runtime remembers of a task: one folder each, its state file replaced atomically.

::

    <root>/<task>/state.json    phase, attempt, process, ports, how it ended
    <root>/<task>/request.json  what the service was started with
    <root>/<task>/log.txt       what it wrote, over all attempts
    <root>/<task>/work          its scratch files, progress.json and termination.json
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from surogate_bench.contract import REQUEST_FILE
from surogate_bench.files import write_atomically
from surogate_bench.progress import Progress
from surogate_bench_orchestrator.adapters.local.processes import ProcessId
from surogate_bench_orchestrator.domain.tasks import Phase


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
    """The last one of a task that has ended."""
    ports: tuple[int, int] | None = None
    """Of a server: control API and vLLM."""
    slot: int | None = None
    """Which of the runtime's slots it holds or held."""


@dataclass(frozen=True, slots=True)
class TaskFolder:
    """Files of one task."""

    path: Path

    @property
    def state_file(self) -> Path:
        """Where the state is."""
        return self.path / "state.json"

    @property
    def request_file(self) -> Path:
        """What the service is started with."""
        return self.path / REQUEST_FILE

    @property
    def log_file(self) -> Path:
        """What it wrote."""
        return self.path / "log.txt"

    @property
    def work_dir(self) -> Path:
        """Its scratch folder."""
        return self.path / "work"

    def read(self) -> TaskState | None:
        """Read the state; None where there is none, or none that can be understood."""
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
        """Read the log's last lines, of its last 256 KiB."""
        try:
            with self.log_file.open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - 2**18))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
