"""A sweep on a cluster, as its resource describes it; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surogate_bench_orchestrator.domain.observed import RunState
from surogate_bench_orchestrator.sweep.rows import SweepView, ViewRow, title_of

_ENDED = frozenset(state.value for state in RunState if state.is_terminal)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSweep:
    """A sweep and its status on a cluster."""

    name: str
    uid: str
    observed: bool
    """Whether the controller has written a status."""
    phase: str
    """Empty if it has not."""
    services: tuple[ViewRow, ...]
    runs: tuple[ViewRow, ...]
    refusal: str
    """Why the controller does not admit the sweep; empty if it does."""
    message: str
    """Message of the condition Complete: what the sweep waits for, or how it ended."""
    results: str
    """URL of its results; empty while unknown."""

    @property
    def rejected(self) -> bool:
        """Whether it can never run as it is."""
        return self.phase == "Rejected"

    @property
    def finished(self) -> bool:
        """Whether every run has ended."""
        return self.phase in {"Complete", "Failed"}

    @property
    def succeeded(self) -> bool:
        """Whether every run has succeeded; one that was skipped has not."""
        return self.finished and all(row.state == RunState.SUCCEEDED for row in self.runs)

    @property
    def view(self) -> SweepView:
        """Return the title and the rows to display."""
        ended = sum(row.state in _ENDED for row in self.runs)
        title = title_of(self.name, ended=ended, total=len(self.runs)) if self.runs else self.name
        notes = [self.phase or "waiting for the controller", self.refusal or ("" if self.finished else self.message)]
        return SweepView(
            title=f"{title} ({': '.join(note for note in notes if note)})",
            rows=(*self.services, *self.runs),
            finished=self.finished,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the status for programs."""
        return {
            "sweep": self.name,
            "phase": self.phase,
            "finished": self.finished,
            "refusal": self.refusal,
            "results": self.results,
            "services": [row.as_json() for row in self.services],
            "runs": [row.as_json() for row in self.runs],
        }


def read_resource(resource: Mapping[str, Any]) -> ClusterSweep:
    """Read a resource as the API server holds it; what a controller has not written yet is unknown."""
    metadata, status = resource["metadata"], resource.get("status") or {}
    admitted, complete = _condition(status, "Admitted"), _condition(status, "Complete")
    current = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    refused = current and admitted.get("status") == "False"
    return ClusterSweep(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        observed="observedGeneration" in status,
        phase=status.get("phase", "") if current or status.get("phase") != "Rejected" else "Pending",
        services=tuple(_row(row) for row in status.get("services") or ()),
        runs=tuple(_row(row) for row in status.get("runs") or ()),
        refusal=admitted.get("message") or admitted.get("reason", "") if refused else "",
        message=complete.get("message", ""),
        results=status.get("resultsURI", ""),
    )


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions") or () if each.get("type") == kind), {})


def _row(row: Mapping[str, Any]) -> ViewRow:
    return ViewRow(
        name=row["name"],
        state=row["state"],
        detail=row.get("detail", ""),
        trouble=": ".join(part for part in (row.get("reason"), row.get("message")) if part),
        attempt=row.get("attempt", 0),
        step=row.get("step", 0),
        total=row.get("total", 0),
        loss=row.get("loss"),
        tokens_per_second=row.get("tokensPerSecond"),
        elapsed_s=row.get("elapsedSeconds"),
        accuracy=row.get("accuracy"),
        stderr=row.get("stderr"),
    )
