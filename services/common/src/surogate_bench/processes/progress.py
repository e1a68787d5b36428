"""The progress of a running service: a small file in its work folder, replaced atomically."""

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from surogate_bench.contract import PROGRESS_FILE, TERMINATION_FILE
from surogate_bench.files import write_atomically


class Activity(StrEnum):
    """What a service does, as it reports it in :attr:`Progress.phase`."""

    STARTING = "starting"
    READING_DATA = "reading data"
    READING_BASE_MODEL = "reading the base model"
    FETCHING = "fetching"
    LOADING = "loading"
    CONVERTING_MODEL = "converting model"
    CHECKING = "checking"
    DESCRIBING = "describing"
    PREPARING = "preparing"
    TRAINING = "training"
    VALIDATING = "validating"
    VALIDATING_AS_SERVED = "validating as served"
    EVALUATING = "evaluating"
    WRITING = "writing"
    UPLOADING = "uploading"
    READY = "ready"  # of a server: it accepts requests


class Progress(BaseModel):
    """Progress of a stage."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    phase: str
    """Current activity, one of :class:`Activity`; a string, as other versions may have others."""
    step: int = 0
    total: int = 0
    """Total number of steps (training) or requests (evaluation); 0 while unknown."""
    loss: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    """Memory currently in use: of the device on a GPU, resident set on a CPU."""


class Termination(BaseModel):
    """Reason and message of a service's failure; the orchestrator shows them to the user."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    reason: str
    """Error class in CamelCase, for example ConfigError."""
    message: str

    def to_json(self, limit: int) -> bytes:
        """Write as UTF-8 JSON of at most ``limit`` bytes (128 or more), shortening the message where needed."""
        shown = self
        while (excess := len(data := shown.model_dump_json().encode()) - limit) > 0:
            # An escaped character takes at most six bytes.
            shown = shown.model_copy(update={"message": shown.message[: -(excess // 6 + 2)] + "…"})
        return data


def write_progress(work_dir: Path, progress: Progress) -> None:
    """Replace the progress file."""
    write_atomically(work_dir / PROGRESS_FILE, progress.model_dump_json(exclude_none=True).encode())


def read_progress(work_dir: Path) -> Progress | None:
    """Read the progress file; None while there is none."""
    try:
        return Progress.model_validate_json((work_dir / PROGRESS_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def read_termination(work_dir: Path) -> Termination | None:
    """Read the service's failure; None if it recorded none."""
    try:
        return Termination.model_validate_json((work_dir / TERMINATION_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
