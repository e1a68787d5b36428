"""Results of the checks that a machine computes recipes correctly: written by the trainer service, read by others."""

import math
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from surogate_bench.errors import ExitCode
from surogate_bench.files import write_atomically
from surogate_bench.machine.hardware import Hardware

REPORT_JSON = "gpu-check.json"
REPORT_MARKDOWN = "gpu-check.md"
ENGINES = "engines"
"""Group of the checks that compare number formats and products with their formulas."""


NO_GPU = "torch finds no GPU"
"""A :attr:`Device.problem`, where there is no better explanation."""


class _Result(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Outcome(StrEnum):
    """Outcome of one check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


class Comparison(_Result):
    """A measured number with its tolerance."""

    quantity: str
    found: float | None
    """None if it is not a finite number, which never holds."""
    limit: float
    """Largest value that passes."""

    @property
    def holds(self) -> bool:
        """Whether the number is within its tolerance."""
        return self.found is not None and self.found <= self.limit


class Check(_Result):
    """One check: what was compared, and what it measured besides."""

    group: str
    """The part of the run that it belongs to, for example ``engines``."""
    name: str
    outcome: Outcome
    reason: str = ""
    """Why it failed or was not run."""
    engine: str = ""
    """Engine of a timed run."""
    comparisons: tuple[Comparison, ...] = ()
    figures: dict[str, float] = {}
    """Measurements that have no tolerance, by name with the unit."""
    losses: tuple[float, ...] = ()
    """Training loss of each step (nats), where others compare theirs with it."""
    seconds: float = 0.0


class Device(_Result):
    """The device that was checked, as torch describes it."""

    name: str
    """Name of the GPU, or ``cpu``."""
    compute_capability: tuple[int, int] | None = None
    memory_bytes: int | None = None
    """Memory of the GPU."""
    driver: str | None = None
    """Version of the GPU's driver."""
    cuda: str | None = None
    """Version of CUDA that torch was built for; None for a CPU build."""
    problem: str | None = None
    """Why a CUDA build of torch cannot use a GPU here, in torch's own terms."""

    @property
    def is_gpu(self) -> bool:
        """Whether a GPU was checked."""
        return self.compute_capability is not None


class CheckReport(_Result):
    """All checks of one run so far."""

    started: datetime
    command: str
    commit: str
    """Commit of the code, or ``unknown``."""
    device: Device
    hardware: Hardware
    versions: dict[str, str]
    oracle: str
    """Source of the roundings that the number formats are compared with."""
    checks: tuple[Check, ...] = ()
    complete: bool = False
    """False while checks are left, or if the run was interrupted."""

    def count(self, outcome: Outcome) -> int:
        """Return the number of checks with an outcome."""
        return sum(check.outcome is outcome for check in self.checks)

    @property
    def exit_code(self) -> ExitCode:
        """0 if every check has passed; on a CPU, those that need a GPU need not have run."""
        excused = set() if self.device.is_gpu else {Outcome.NOT_RUN}
        good = {check.outcome for check in self.checks} <= {Outcome.PASSED} | excused
        return ExitCode.OK if self.complete and good and self.count(Outcome.PASSED) else ExitCode.FAILED


def engine_check_name(recipe: str, engine: str) -> str:
    """Return the name of the check of a recipe's products on an engine."""
    return f"{recipe} on {engine}"


def compare(quantity: str, found: float, limit: float) -> Comparison:
    """Make a comparison; a number that is not finite never holds."""
    return Comparison(quantity=quantity, found=found if math.isfinite(found) else None, limit=limit)


def write_report(folder: Path, report: CheckReport, markdown: str) -> None:
    """Replace both files of a report."""
    write_atomically(folder / REPORT_JSON, report.model_dump_json(indent=2).encode())
    write_atomically(folder / REPORT_MARKDOWN, markdown.encode())


def read_report(folder: Path) -> CheckReport | None:
    """Read a report; None if there is none that this version can read."""
    try:
        return CheckReport.model_validate_json((folder / REPORT_JSON).read_bytes())
    except (OSError, ValidationError):
        return None
