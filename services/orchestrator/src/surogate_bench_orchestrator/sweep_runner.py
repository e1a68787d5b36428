"""Bring a sweep to its end: observe, decide, act, again and again."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from surogate_bench.errors import TransientError
from surogate_bench.manifest import Manifest
from surogate_bench.requests import EvaluateRequest
from surogate_bench.store import ObjectStore
from surogate_bench_orchestrator.domain.observed import Observed, RunStatus, is_finished, run_states
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.reconcile import Action, Delete, reconcile
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task
from surogate_bench_orchestrator.facts import StageFacts
from surogate_bench_orchestrator.ports import Clock, Runtime

_log = logging.getLogger(__name__)

POLL_S = 0.3
_STORE_PATIENCE_S = 600.0
"""How long the store may be away before the sweep gives up; tasks go on meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A sweep at one moment."""

    plan: Plan
    observed: Observed
    manifests: Mapping[str, Manifest]
    """By task name."""

    @property
    def states(self) -> dict[str, RunStatus]:
        """Where each run is."""
        return run_states(self.plan, self.observed)

    @property
    def is_finished(self) -> bool:
        """Whether every run has ended and nothing runs any more."""
        return is_finished(self.plan, self.observed)


class SweepRunner:
    """Runs one sweep.

    Args:
        plan: What it consists of.
        runtime: What runs its tasks.
        store: Where its results go.
        clock: For waiting.
        heartbeat: Called every round; raises to stop.
        show: Called with every new snapshot.
    """

    def __init__(
        self,
        plan: Plan,
        runtime: Runtime,
        store: ObjectStore,
        clock: Clock,
        heartbeat: Callable[[], None],
        show: Callable[[Snapshot], None],
    ) -> None:
        self._plan = plan
        self._runtime = runtime
        self._clock = clock
        self._heartbeat = heartbeat
        self._show = show
        self._facts = StageFacts(store, plan)
        self._read_at: dict[str, tuple[Phase, int]] = {}
        self._away_since: float | None = None

    def run(self) -> Snapshot:
        """Run until every run has ended, well or badly.

        Raises:
            TransientError: the store was away for too long.
            PermanentError: the store or the runtime refuses.
        """
        self._facts.read_all()
        while True:
            self._heartbeat()
            snapshot = self._observe()
            if snapshot is not None:
                self._show(snapshot)
                if snapshot.is_finished:
                    return snapshot
                for action in reconcile(self._plan, snapshot.observed):
                    self._act(action)
            self._clock.sleep(POLL_S)

    def _observe(self) -> Snapshot | None:
        """Look at the tasks first and at the store second: what has succeeded has left its manifest before.

        Returns:
            None while the store is away, when nothing can be decided.
        """
        seen = self._runtime.observe(task.name for task in self._plan.tasks)
        try:
            self._read_news(seen)
        except TransientError as error:
            self._bear_with(error)
            return None
        self._away_since = None
        observed = Observed(done=self._facts.done, tasks=seen, slots=self._runtime.capacity())
        return Snapshot(plan=self._plan, observed=observed, manifests=dict(self._facts.manifests))

    def _read_news(self, seen: Mapping[str, Observation]) -> None:
        """Look for the manifests of tasks whose phase or attempt changed; of the others there is no news."""
        for task in self._plan.tasks:
            now = (seen[task.name].phase, seen[task.name].attempt)
            if now != self._read_at.get(task.name, (Phase.ABSENT, 0)):
                self._facts.read([task])
                self._read_at[task.name] = now

    def _bear_with(self, error: TransientError) -> None:
        now = self._clock.now()
        if self._away_since is None:
            _log.warning("the store is away; going on when it is back: %s", error)
            self._away_since = now
        if now - self._away_since > _STORE_PATIENCE_S:
            raise TransientError(f"the store has been away for {_STORE_PATIENCE_S:g} s") from error

    def _act(self, action: Action) -> None:
        if isinstance(action, Delete):
            self._runtime.delete(action.task.name)
        else:
            self._runtime.submit(self._addressed(action.task))

    def _addressed(self, task: Task) -> Task:
        """Tell an evaluation where the server is."""
        if not isinstance(task.request, EvaluateRequest):
            return task
        url = self._runtime.endpoint(self._plan.server.name)
        return replace(task, request=task.request.model_copy(update={"server_url": url}))
