"""Tasks whose submission the cluster refuses: waited for, as a quota may be raised, but not for ever."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from surogate_bench_orchestrator.controller.sweep.standing import Trouble
from surogate_bench_orchestrator.domain.tasks import Observation, Phase
from surogate_bench_orchestrator.sweep.runner import Snapshot

PATIENCE_S = 600.0
REFUSED = "SubmissionRefused"


class Refusals:
    """Remembers since when submissions are refused, and why.

    Kept in memory only: after a restart the cluster is asked again, and the patience begins again.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._messages: dict[str, str] = {}

    def update(self, refused: Mapping[str, str]) -> None:
        """Remember what was refused this time, and forget what was not: it was accepted or is wanted no more.

        Args:
            refused: Why, by task name.
        """
        over = {task for task in self._since if self._is_over(task)}
        for task in self._since.keys() - refused.keys() - over:
            del self._since[task], self._messages[task]
        for task, message in refused.items():
            self._since.setdefault(task, self._clock())
            self._messages[task] = message

    def trouble(self) -> Trouble | None:
        """What to tell, while something is refused and still waited for."""
        waiting = [task for task in self._since if not self._is_over(task)]
        return Trouble(REFUSED, self._messages[waiting[0]]) if waiting else None

    def judged(self, snapshot: Snapshot) -> Snapshot:
        """See tasks that were refused for too long as failed."""
        observed = snapshot.observed
        over = {
            task: Observation(phase=Phase.FAILED, reason=REFUSED, message=self._messages[task])
            for task in self._since
            if self._is_over(task) and task not in observed.done
        }
        if not over:
            return snapshot
        return replace(snapshot, observed=replace(observed, tasks={**observed.tasks, **over}))

    def _is_over(self, task: str) -> bool:
        return self._clock() - self._since[task] > PATIENCE_S
