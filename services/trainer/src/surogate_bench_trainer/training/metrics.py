"""``metrics.jsonl``: one line for each optimizer step and each validation, appended immediately."""

from pathlib import Path
from statistics import fmean

from surogate_bench.contract import METRICS_FILE
from surogate_bench.files import write_atomically
from surogate_bench.results import MetricsLine, ValidationPoint

FINAL_STEPS = 20
"""Steps whose mean loss is the final one."""


class MetricsLog:
    """All lines so far, in memory and in ``<work_dir>/metrics.jsonl``.

    Args:
        work_dir: Folder of the file; None for a process that writes none.
        earlier: Content of the file in the checkpoint that training resumes from. Later lines on disk are discarded.

    Raises:
        ValueError: ``earlier`` is not a metrics file.
    """

    def __init__(self, work_dir: Path | None, earlier: bytes = b"") -> None:
        self._path = work_dir and work_dir / METRICS_FILE
        self._lines = [MetricsLine.model_validate_json(line) for line in earlier.splitlines()]
        if self._path is not None:
            write_atomically(self._path, earlier)

    def append(self, line: MetricsLine) -> None:
        """Append a line to the file."""
        self._lines.append(line)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line.model_dump_json(exclude_none=True) + "\n")

    def content(self) -> bytes:
        """Return the content of the file; empty if there is none."""
        return b"" if self._path is None else self._path.read_bytes()

    @property
    def steps(self) -> int:
        """Number of optimizer steps so far."""
        return sum(line.loss is not None for line in self._lines)

    def validations(self) -> tuple[ValidationPoint, ...]:
        """Return step and loss of every validation."""
        return tuple(
            ValidationPoint(step=line.step, loss=line.eval_loss) for line in self._lines if line.eval_loss is not None
        )

    def final_train_loss(self) -> float:
        """Return the mean training loss of the last 20 steps."""
        return fmean([line.loss for line in self._lines if line.loss is not None][-FINAL_STEPS:])

    def totals(self) -> tuple[int, float]:
        """Return tokens and seconds of all steps."""
        return sum(line.tokens or 0 for line in self._lines), sum(line.seconds or 0.0 for line in self._lines)

    def recent_speed(self) -> float | None:
        """Return the tokens per second over the last 20 lines, or None before the first step."""
        recent = [line for line in self._lines[-FINAL_STEPS:] if line.seconds]
        seconds = sum(line.seconds or 0.0 for line in recent)
        return sum(line.tokens or 0 for line in recent) / seconds if seconds else None
