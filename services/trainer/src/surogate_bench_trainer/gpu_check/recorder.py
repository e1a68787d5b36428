"""Runs checks one after another, and writes the report after each, so that an interruption loses nothing."""

import gc
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from surogate_bench.errors import BenchError, shorten
from surogate_bench.machine.checks import Check, CheckReport, Comparison, Outcome, write_report
from surogate_bench_trainer.gpu_check.markdown import describe_check, render

_log = logging.getLogger(__name__)
_SHOWN_CHARACTERS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Measurements of a check."""

    comparisons: tuple[Comparison, ...] = ()
    """Numbers with a tolerance; the check passes if there are some and all hold."""
    figures: Mapping[str, float] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    engine: str = ""
    not_run: str = ""
    """Why this finding proves nothing on this machine, although its code has run."""


class NotRun(Exception):  # noqa: N818 - no error
    """This check cannot run on this machine."""


class Recorder:
    """The report of a run as it grows.

    Args:
        folder: Folder of the report.
        report: The report without checks.
        deadline: Value of ``clock`` after which checks are no longer started.
        clock: Seconds.
    """

    def __init__(
        self, folder: Path, report: CheckReport, *, deadline: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.report = report
        self._folder = folder
        self._deadline = deadline
        self._clock = clock
        self._write()

    def run(self, group: str, name: str, measure: Callable[[], Finding]) -> None:
        """Run one check and write the report; an exception is a failed check, and the next ones still run."""
        began = self._clock()
        if began >= self._deadline:
            self._add(Check(group=group, name=name, outcome=Outcome.NOT_RUN, reason="the time limit was reached"))
            return
        check = _outcome(group, name, measure)
        self._add(check.model_copy(update={"seconds": round(self._clock() - began, 3)}))
        _release_memory()

    def finish(self) -> None:
        """Record that no check is left."""
        self.report = self.report.model_copy(update={"complete": True})
        self._write()

    def _add(self, check: Check) -> None:
        self.report = self.report.model_copy(update={"checks": (*self.report.checks, check)})
        self._write()
        _log.info("%s", describe_check(check))

    def _write(self) -> None:
        write_report(self._folder, self.report, render(self.report))


def _outcome(group: str, name: str, measure: Callable[[], Finding]) -> Check:
    check = Check(group=group, name=name, outcome=Outcome.FAILED)
    try:
        finding = measure()
    except NotRun as reason:
        return check.model_copy(update={"outcome": Outcome.NOT_RUN, "reason": str(reason)})
    except BenchError as error:
        return check.model_copy(update={"reason": str(error)})
    except Exception as error:  # noqa: BLE001 - the other checks are still worth running
        _log.exception("%s: %s", group, name)
        return check.model_copy(update={"reason": shorten(f"{type(error).__name__}: {error}", _SHOWN_CHARACTERS)})
    holds = bool(finding.comparisons) and all(comparison.holds for comparison in finding.comparisons)
    outcome = Outcome.FAILED if not holds else Outcome.NOT_RUN if finding.not_run else Outcome.PASSED
    return Check(
        group=group,
        name=name,
        outcome=outcome,
        reason=finding.not_run if holds else "a number is outside of its tolerance",
        engine=finding.engine,
        comparisons=finding.comparisons,
        figures=dict(finding.figures),
        losses=finding.losses,
    )


def _release_memory() -> None:
    if torch.cuda.is_available():  # a collection takes half a second
        gc.collect()
        torch.cuda.empty_cache()
