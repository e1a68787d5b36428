"""Tasks whose submission the cluster refuses: retried for a while, as a quota may be raised, then failed."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.domain.tasks import Observation, Phase
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

GRACE_S = 600.0
REFUSED = "SubmissionRefused"


class RefusedSubmissions:
    """Records since when submissions are refused, and why.

    Kept in memory only: after a restart the submission is retried, and the grace period starts again.

    Args:
        clock: Monotonic clock, seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._messages: dict[str, str] = {}

    def record(self, refused: Mapping[str, str]) -> None:
        """Record what was refused in this reconcile, and forget what was accepted or is no longer requested.

        Args:
            refused: Messages by task name.
        """
        expired = {task for task in self._since if self._is_expired(task)}
        for task in self._since.keys() - refused.keys() - expired:
            del self._since[task], self._messages[task]
        for task, message in refused.items():
            self._since.setdefault(task, self._clock())
            self._messages[task] = message

    def failure(self) -> Failure | None:
        """Return the failure of the first submission that is still retried; None if there is none."""
        pending = [task for task in self._since if not self._is_expired(task)]
        return Failure(REFUSED, self._messages[pending[0]]) if pending else None

    def applied_to(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with tasks that were refused for too long as failed."""
        observed = snapshot.observed
        failed = {
            task: Observation(phase=Phase.FAILED, reason=REFUSED, message=self._messages[task])
            for task in self._since
            if self._is_expired(task) and task not in observed.done
        }
        if not failed:
            return snapshot
        return replace(snapshot, observed=replace(observed, tasks={**observed.tasks, **failed}))

    def _is_expired(self, task: str) -> bool:
        return self._clock() - self._since[task] > GRACE_S
