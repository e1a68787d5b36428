"""Run a sweep to its end: observe, decide and act in a loop."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from surogate_bench.errors import TransientError
from surogate_bench.stages.publication import reuse_stage
from surogate_bench.stages.requests import EvaluateRequest
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.domain.observed import Observed
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.reconcile import Action, Delete, Reuse, reconcile
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task
from surogate_bench_orchestrator.ports import Clock, Runtime
from surogate_bench_orchestrator.sweep.completed_stages import CompletedStages
from surogate_bench_orchestrator.sweep.reuse import ReusableStages
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

_log = logging.getLogger(__name__)

POLL_S = 0.3
_STORE_TIMEOUT_S = 600.0
"""How long the store may be unavailable before the run fails; tasks continue until then."""


class SweepDriver:
    """Observes a sweep and acts on it; level-triggered, so that earlier actions do not matter.

    Args:
        plan: Its runs and tasks.
        runtime: Runs its tasks.
        store: Holds its results.
    """

    def __init__(self, plan: Plan, runtime: Runtime, store: ObjectStore) -> None:
        self._plan = plan
        self._runtime = runtime
        self._store = store
        self._completed = CompletedStages(store, plan)
        self._reusable = ReusableStages(store, plan)
        self._store_was_read = False
        self._read_at: dict[str, tuple[Phase, int]] = {}

    def snapshot(self) -> Snapshot:
        """Observe the tasks, then read the store.

        Raises:
            TransientError: store or runtime is unavailable; nothing can be decided.
            PermanentError: one of them refuses.
        """
        return self.read(self.observe())

    def observe(self) -> Mapping[str, Observation]:
        """Observe the tasks.

        Raises:
            TransientError: the runtime is unavailable.
            PermanentError: it refuses.
        """
        return self._runtime.observe(task.name for task in self._plan.tasks)

    def read(self, tasks: Mapping[str, Observation]) -> Snapshot:
        """Read the store; the tasks are observed before, as a task that has succeeded has written its manifest before.

        Raises:
            TransientError: the store is unavailable.
            PermanentError: it refuses.
        """
        if not self._store_was_read:
            self._completed.read_all()
            self._store_was_read = True
        self._read_changed(tasks)
        observed = Observed(
            done=self._completed.done,
            tasks=tasks,
            slots=self._runtime.capacity(),
            reusable=self._reusable.find(self._completed.manifests),
        )
        return Snapshot(plan=self._plan, observed=observed, manifests=dict(self._completed.manifests))

    def act(self, action: Action) -> None:
        """Carry out an action.

        Raises:
            TransientError: the runtime is unavailable.
            PermanentError: it refuses.
        """
        if isinstance(action, Delete):
            self._runtime.delete(action.task.name)
        elif isinstance(action, Reuse):
            self._reuse(action)
        else:
            self._runtime.submit(self._with_server_url(action.task))

    def _reuse(self, action: Reuse) -> None:
        """Write a reference to an equal stage; if the store is unavailable now, the next pass does it."""
        task = action.task
        assert task.output is not None  # noqa: S101 - a server has no result to reuse
        run = next(run.name for run in self._plan.runs if task in run.tasks)
        try:
            if reuse_stage(self._store, task.output, run=run, source=action.source):
                _log.info("%s reuses the result of %s", task.name, action.source)
                self._completed.read([task])
            else:
                self._reusable.forget(task.name)
        except TransientError as error:
            _log.warning("could not write a reference to %s: %s", action.source, error)

    def _read_changed(self, tasks: Mapping[str, Observation]) -> None:
        """Read the manifests of tasks whose phase or attempt changed; those of the others are as they were."""
        for task in self._plan.tasks:
            now = (tasks[task.name].phase, tasks[task.name].attempt)
            if now != self._read_at.get(task.name, (Phase.ABSENT, 0)):
                self._completed.read([task])
                self._read_at[task.name] = now

    def _with_server_url(self, task: Task) -> Task:
        """Add the server's URL to the request of an evaluation."""
        if not isinstance(task.request, EvaluateRequest):
            return task
        url = self._runtime.endpoint(self._plan.server_of(task).name)
        return replace(task, request=task.request.model_copy(update={"server_url": url}))


class SweepRunner:
    """Runs one sweep to its end.

    Args:
        plan: Its runs and tasks.
        runtime: Runs its tasks.
        store: Holds its results.
        clock: For waiting.
        heartbeat: Called in every pass before the tasks are observed; raises to stop.
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
        self._unavailable_since: float | None = None

    def run(self) -> Snapshot:
        """Run until every run has ended, whether it succeeded or failed.

        Raises:
            TransientError: the store was unavailable for too long.
            PermanentError: the store or the runtime refuses.
        """
        while True:
            self._heartbeat()
            snapshot = self._observe()
            if snapshot is not None:
                self._show(snapshot)
                if snapshot.is_finished:
                    return snapshot
                for action in reconcile(self._plan, snapshot.observed):
                    self._driver.act(action)
            self._clock.sleep(POLL_S)

    def _observe(self) -> Snapshot | None:
        """Return a snapshot; None while the store is unavailable, when nothing can be decided."""
        try:
            snapshot = self._driver.snapshot()
        except TransientError as error:
            self._require_reachable(error)
            return None
        self._unavailable_since = None
        return snapshot

    def _require_reachable(self, error: TransientError) -> None:
        """Raise once the store has been unavailable for too long."""
        now = self._clock.now()
        if self._unavailable_since is None:
            _log.warning("the store is unavailable; continuing once it responds: %s", error)
            self._unavailable_since = now
        if now - self._unavailable_since > _STORE_TIMEOUT_S:
            raise TransientError(f"the store has been unavailable for {_STORE_TIMEOUT_S:g} s") from error
