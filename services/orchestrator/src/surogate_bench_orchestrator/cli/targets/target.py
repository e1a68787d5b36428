"""The interface to where a sweep runs, and the options of its two implementations."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from surogate_bench.errors import ExitCode


class On(StrEnum):
    """Names of the targets."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True)
class SweepArgument:
    """The sweep that a command is about."""

    path: Path
    """Its file; for a cluster also its name."""
    seeds: Sequence[int] = ()
    """Replace the seeds of the file if not empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """Options that only this machine has; the fields are named like the parameters of the commands."""

    store: str = "results"
    """URL or folder of the object store."""
    state_dir: Path = Path(".surogate-bench")
    """Parent folder of the local state of sweeps."""
    slots: int | None = None
    """Maximum number of slots; None for as many as the machine allows."""
    no_wait: bool = False
    """Fail if another process holds the lock of the sweep, instead of waiting for it."""
    no_reuse: bool = False
    """Compute every stage, even if the store has the result of an equal one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Options that only a cluster has; the fields are named like the parameters of the commands."""

    namespace: str | None = None
    """Namespace of the sweep; None for the context's."""
    kube_context: str | None = None
    """Context of KUBECONFIG; None for the current one."""
    report_to: Path | None = None
    """Folder for the report of ``run``; None for ``results/<sweep>-<hash>/report``."""


class Target(Protocol):
    """Runs sweeps, and reports on them.

    Methods raise ConfigError for bad input, and another BenchError for all other failures.
    """

    def run(self, sweep: SweepArgument, *, as_json: bool) -> ExitCode:
        """Run a sweep to its end, or continue it, and show its report.

        Returns:
            OK if every run succeeded, FAILED if one did not, BAD_INPUT if model, data or task cannot be used,
            INTERRUPTED if the sweep continues without this process.

        Raises:
            Interrupted: a signal requested a stop, and the sweep has stopped.
        """
        ...

    def status(self, sweep: SweepArgument, *, as_json: bool) -> None:
        """Show the status of a sweep."""
        ...

    def report(self, sweep: SweepArgument, *, folder: Path | None) -> None:
        """Show the report of the runs that have finished so far, and copy it into a folder."""
        ...

    def logs(self, sweep: SweepArgument, run: str, *, stage: str | None, tail: int) -> None:
        """Show the last ``tail`` lines of each log of a run, or of a service; all stages if ``stage`` is None."""
        ...

    def render(self, sweep: SweepArgument, *, as_json: bool) -> None:
        """Show what :meth:`run` would submit, and submit nothing."""
        ...
