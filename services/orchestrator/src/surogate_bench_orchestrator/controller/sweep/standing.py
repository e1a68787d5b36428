"""What the controller knows of a sweep at one moment; its status, events and metrics are made from this."""

from dataclasses import dataclass

from surogate_bench_orchestrator.sweep.runner import Snapshot


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something outside the sweep that keeps it from going on."""

    reason: str
    """CamelCase, for example StoreAway."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a sweep stands."""

    generation: int
    refusal: Trouble | None = None
    """Why it is not admitted."""
    spec_hash: str = ""
    results_uri: str = ""
    """Where its results are; runs lie under ``runs/`` there. Empty if it is not admitted."""
    snapshot: Snapshot | None = None
    """None before the first look, or while nothing can be seen."""
    suspended: bool = False
    trouble: Trouble | None = None
    finished: bool = False
    """Every run has ended and the report is written (or was given up, which ``remark`` says)."""
    remark: str = ""
