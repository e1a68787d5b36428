"""The state of a sweep after one reconcile: its status, Events and metrics are made from this."""

from dataclasses import dataclass

from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.sweep.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepState:
    """What a reconcile observed and achieved."""

    generation: int
    rejection: Failure | None = None
    """Why the sweep is not admitted; None if it is."""
    spec_hash: str = ""
    results_uri: str = ""
    """Location of the results; runs are under ``runs/``. Empty if the sweep is not admitted."""
    snapshot: Snapshot | None = None
    """None if the sweep could not be observed."""
    suspended: bool = False
    failure: Failure | None = None
    """What prevents the sweep from continuing."""
    finished: bool = False
    """Every run has ended, and the report is written or was abandoned."""
    report_failure: str = ""
    """Why the report was abandoned."""
