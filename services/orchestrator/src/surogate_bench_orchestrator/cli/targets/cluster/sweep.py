"""A sweep on a cluster, as its resource describes it; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surogate_bench_orchestrator.domain.observed import Failure, RunState
from surogate_bench_orchestrator.resource.status import (
    ConditionStatus,
    ConditionType,
    StatusRow,
    SweepPhase,
    SweepStatus,
)
from surogate_bench_orchestrator.sweep.rows import ProgressRow, SweepProgress, title_of

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
    services: tuple[ProgressRow, ...]
    runs: tuple[ProgressRow, ...]
    refusal: str
    """Why the controller does not admit the sweep; empty if it does."""
    message: str
    """Message of the condition Complete: what the sweep waits for, or how it ended."""
    results: str
    """URL of its results; empty while unknown."""

    @property
    def rejected(self) -> bool:
        """Whether it can never run as it is."""
        return self.phase == SweepPhase.REJECTED

    @property
    def finished(self) -> bool:
        """Whether every run has ended."""
        return self.phase in {SweepPhase.COMPLETE, SweepPhase.FAILED}

    @property
    def succeeded(self) -> bool:
        """Whether every run has succeeded; one that was skipped has not."""
        return self.finished and all(row.state == RunState.SUCCEEDED for row in self.runs)

    @property
    def progress(self) -> SweepProgress:
        """Return the title and the rows to display."""
        ended = sum(row.state in _ENDED for row in self.runs)
        title = title_of(self.name, ended=ended, total=len(self.runs)) if self.runs else self.name
        notes = [self.phase or "waiting for the controller", self.refusal or ("" if self.finished else self.message)]
        return SweepProgress(
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
    """Read a resource as the API server holds it; fields that no controller has written yet are unknown."""
    metadata, status = resource["metadata"], SweepStatus.of(resource)
    current = status.observed_generation >= metadata.get("generation", 0)
    complete = status.condition(ConditionType.COMPLETE)
    return ClusterSweep(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        observed=status.observed_generation > 0,
        phase=status.phase if current or status.phase != SweepPhase.REJECTED else SweepPhase.PENDING,
        services=tuple(progress_row(row) for row in status.services),
        runs=tuple(progress_row(row) for row in status.runs),
        refusal=_refusal(status) if current else "",
        message=complete.message if complete else "",
        results=status.results_uri,
    )


def progress_row(row: StatusRow) -> ProgressRow:
    """Return a row of the status as it is displayed."""
    return ProgressRow(
        name=row.name,
        state=row.state,
        detail=row.detail,
        failure=Failure(row.reason, row.message) if row.reason else None,
        attempt=row.attempt,
        step=row.step,
        total=row.total,
        loss=row.loss,
        tokens_per_second=row.tokens_per_second,
        elapsed_s=row.elapsed_seconds,
        accuracy=row.accuracy,
        stderr=row.stderr,
        served_accuracies=row.served_accuracies,
        merged_accuracies=row.merged_accuracies,
        task_accuracies=row.task_accuracies,
    )


def _refusal(status: SweepStatus) -> str:
    admitted = status.condition(ConditionType.ADMITTED)
    if admitted is None or admitted.status != ConditionStatus.FALSE:
        return ""
    return admitted.message or admitted.reason
