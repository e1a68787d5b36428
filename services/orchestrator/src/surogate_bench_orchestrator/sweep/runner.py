"""Bring a sweep to its end: observe, decide, act, again and again."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from surogate_bench.errors import TransientError
from surogate_bench.manifest import Manifest
from surogate_bench.requests import EvaluateRequest
from surogate_bench.stages import reuse_stage
from surogate_bench.store import ObjectStore
from surogate_bench_orchestrator.domain.observed import Observed, RunState, RunStatus, is_finished, run_states
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.reconcile import Action, Delete, Reuse, reconcile
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task
from surogate_bench_orchestrator.ports import Clock, Runtime
from surogate_bench_orchestrator.sweep.completed_stages import CompletedStages
from surogate_bench_orchestrator.sweep.reuse import ReusableStages

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

    def troubles(self) -> tuple[dict[str, str], dict[str, str]]:
        """Why runs failed, and why runs were skipped, by run name."""
        ended = {name: (status.state, str(status.failure)) for name, status in self.states.items() if status.failure}
        failed = {name: why for name, (state, why) in ended.items() if state is not RunState.SKIPPED}
        skipped = {name: why for name, (state, why) in ended.items() if state is RunState.SKIPPED}
        return failed, skipped


class SweepDriver:
    """Looks at a sweep and acts on it, one step at a time; level-triggered, so it does not matter what was done before.

    Args:
        plan: What it consists of.
        runtime: What runs its tasks.
        store: Where its results go.
    """

    def __init__(self, plan: Plan, runtime: Runtime, store: ObjectStore) -> None:
        self._plan = plan
        self._runtime = runtime
        self._store = store
        self._facts = CompletedStages(store, plan)
        self._reusable = ReusableStages(store, plan)
        self._looked = False
        self._read_at: dict[str, tuple[Phase, int]] = {}

    def look(self) -> Snapshot:
        """See how the sweep stands.

        Raises:
            TransientError: store or runtime is away; nothing can be decided.
            PermanentError: one of them refuses.
        """
        return self.read(self.observe())

    def observe(self) -> Mapping[str, Observation]:
        """Look at the tasks, the first half of a look.

        Raises:
            TransientError: the runtime is away.
            PermanentError: it refuses.
        """
        return self._runtime.observe(task.name for task in self._plan.tasks)

    def read(self, seen: Mapping[str, Observation]) -> Snapshot:
        """Look at the store, after the tasks: what has succeeded has left its manifest before.

        Raises:
            TransientError: the store is away.
            PermanentError: it refuses.
        """
        if not self._looked:
            self._facts.read_all()
            self._looked = True
        self._read_news(seen)
        observed = Observed(
            done=self._facts.done,
            tasks=seen,
            slots=self._runtime.capacity(),
            reusable=self._reusable.find(self._facts.manifests),
        )
        return Snapshot(plan=self._plan, observed=observed, manifests=dict(self._facts.manifests))

    def act(self, action: Action) -> None:
        """Do what was decided.

        Raises:
            TransientError: the runtime is away.
            PermanentError: it refuses.
        """
        if isinstance(action, Delete):
            self._runtime.delete(action.task.name)
        elif isinstance(action, Reuse):
            self._reuse(action)
        else:
            self._runtime.submit(self._addressed(action.task))

    def _reuse(self, action: Reuse) -> None:
        """Refer to an equal stage; where the store is away just now, the next round does it."""
        task = action.task
        assert task.output is not None  # noqa: S101 - a server has no result to reuse
        run = next(run.name for run in self._plan.runs if task in (run.train, run.evaluate))
        try:
            if reuse_stage(self._store, task.output, run=run, source=action.source):
                _log.info("%s is not computed again: its result is that of %s", task.name, action.source)
                self._facts.read([task])
            else:
                self._reusable.forget(task.name)
        except TransientError as error:
            _log.warning("%s could not be referred to: %s", action.source, error)

    def _read_news(self, seen: Mapping[str, Observation]) -> None:
        """Look for the manifests of tasks whose phase or attempt changed; of the others there is no news."""
        for task in self._plan.tasks:
            now = (seen[task.name].phase, seen[task.name].attempt)
            if now != self._read_at.get(task.name, (Phase.ABSENT, 0)):
                self._facts.read([task])
                self._read_at[task.name] = now

    def _addressed(self, task: Task) -> Task:
        """Tell an evaluation where the server is."""
        if not isinstance(task.request, EvaluateRequest):
            return task
        url = self._runtime.endpoint(self._plan.server.name)
        return replace(task, request=task.request.model_copy(update={"server_url": url}))


class SweepRunner:
    """Runs one sweep to its end.

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
        self._driver = SweepDriver(plan, runtime, store)
        self._clock = clock
        self._heartbeat = heartbeat
        self._show = show
        self._away_since: float | None = None

    def run(self) -> Snapshot:
        """Run until every run has ended, well or badly.

        Raises:
            TransientError: the store was away for too long.
            PermanentError: the store or the runtime refuses.
        """
        while True:
            self._heartbeat()
            snapshot = self._look()
            if snapshot is not None:
                self._show(snapshot)
                if snapshot.is_finished:
                    return snapshot
                for action in reconcile(self._plan, snapshot.observed):
                    self._driver.act(action)
            self._clock.sleep(POLL_S)

    def _look(self) -> Snapshot | None:
        """Look; None while the store is away, when nothing can be decided."""
        try:
            snapshot = self._driver.look()
        except TransientError as error:
            self._bear_with(error)
            return None
        self._away_since = None
        return snapshot

    def _bear_with(self, error: TransientError) -> None:
        now = self._clock.now()
        if self._away_since is None:
            _log.warning("the store is away; going on when it is back: %s", error)
            self._away_since = now
        if now - self._away_since > _STORE_PATIENCE_S:
            raise TransientError(f"the store has been away for {_STORE_PATIENCE_S:g} s") from error
