"""The figures that a foreign trainer reports in ``metrics.jsonl``, read leniently and with size limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import JsonValue, TypeAdapter, ValidationError

from surogate_bench.contract import METRICS_FILE
from surogate_bench.errors import printable, shorten
from surogate_bench.inputs.adapter_files import read_bounded
from surogate_bench.results import MetricsLine, ValidationPoint
from surogate_bench_trainer.training.metrics import FINAL_STEPS

_LARGEST = 64 << 20
_TAIL_BYTES = 4096
_MOST_STEPS = 10**9
_OBJECT = TypeAdapter(dict[str, JsonValue])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The figures of a training run, as far as they were reported."""

    lines: tuple[MetricsLine, ...] = ()
    """Lines in the order of steps; of a step or validation that was reported twice, the last report is used."""
    warnings: tuple[str, ...] = ()

    @property
    def steps(self) -> int | None:
        """The last step that was reported."""
        return max((line.step for line in self.lines if line.loss is not None), default=None)

    @property
    def tokens(self) -> int | None:
        """Sum over all steps; None where a line has none."""
        counts = [line.tokens for line in self.lines if line.loss is not None]
        return sum(count for count in counts if count is not None) if counts and None not in counts else None

    @property
    def seconds(self) -> float | None:
        """Sum over all steps; None where a line has none."""
        found = [line.seconds for line in self.lines if line.loss is not None]
        return math.fsum(each for each in found if each is not None) if found and None not in found else None

    @property
    def final_train_loss(self) -> float | None:
        """Mean over the lines of the last 20 steps."""
        last = (self.steps or 0) - FINAL_STEPS
        losses = [line.loss for line in self.lines if line.loss is not None and line.step > last]
        return fmean(losses) if losses else None

    @property
    def validation(self) -> tuple[ValidationPoint, ...]:
        """Step and loss of every validation."""
        return tuple(
            ValidationPoint(step=line.step, loss=line.eval_loss) for line in self.lines if line.eval_loss is not None
        )

    def content(self) -> bytes:
        """Return the lines as this software writes them."""
        return b"".join(line.model_dump_json(exclude_none=True).encode() + b"\n" for line in self.lines)


def read_reported(folder: Path) -> Reported:
    """Read a trainer's output folder. If it cannot be read, there is a warning and no figures."""
    path = folder / METRICS_FILE
    if not path.exists():
        return Reported(warnings=(f"The trainer left no {METRICS_FILE}: its losses and its speed are not known.",))
    try:
        lines = [_parse(line, number) for number, line in enumerate(_content(path).splitlines(), start=1) if line]
    except (OSError, ValueError) as error:
        why = shorten(printable(str(error).replace("\n", " ")))
        return Reported(warnings=(f"The trainer's {METRICS_FILE} is not used, and its figures are not known: {why}.",))
    return Reported(lines=_ordered(lines))


def newest_line(folder: Path) -> MetricsLine | None:
    """Return the last complete line of a file that is being written; None if there is none, or it is not a metric."""
    path = folder / METRICS_FILE
    if not path.is_file():  # opening a pipe would wait for a writer
        return None
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            complete = file.read().rpartition(b"\n")[0]
        return _parse(complete.rpartition(b"\n")[2], 0)
    except (OSError, ValueError):
        return None


def _content(path: Path) -> bytes:
    """Read the file.

    Raises:
        ValueError: it is a link, not a regular file, or too large.
    """
    data = None if path.is_symlink() else read_bounded(path, _LARGEST)
    if data is None:
        raise ValueError(f"it is not a regular file of at most {_LARGEST >> 20} MiB")
    return data


def _parse(line: bytes, number: int) -> MetricsLine:
    """Read the known fields of a line; others are left out.

    Raises:
        ValueError: it is not a JSON object, has no step, or a figure is not a finite number.
    """
    try:
        raw = _OBJECT.validate_json(line)
        found = MetricsLine.model_validate({name: raw[name] for name in MetricsLine.model_fields if name in raw})
    except ValidationError as error:
        raise ValueError(f"line {number}: {error}") from error
    figures = (getattr(found, name) for name in MetricsLine.model_fields)
    if not 0 <= found.step <= _MOST_STEPS or not all(math.isfinite(each) for each in figures if each is not None):
        raise ValueError(f"line {number}: a figure is not a finite number")
    return found


def _ordered(lines: Sequence[MetricsLine]) -> tuple[MetricsLine, ...]:
    last = {(line.step, line.eval_loss is not None): line for line in lines}
    return tuple(last[key] for key in sorted(last))
