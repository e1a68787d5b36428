"""Runs the tasks of one sweep as Jobs and Deployments.

Every task is one object with the task's name, so that a task that is submitted twice is created once; a server also has
a Service. :meth:`KubernetesRuntime.enforce_limits` does what Kubernetes does not do by itself: it stops tasks that get
no node, image or Secret, and enforces deadlines that start when a pod is placed.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from typing_extensions import override

from surogate_bench.contract import SERVER_PORT
from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.processes.progress import Termination
from surogate_bench.stages.requests import ServeRequest
from surogate_bench_orchestrator.domain.tasks import ABSENT, Observation, Task
from surogate_bench_orchestrator.ports import Runtime
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec
from surogate_bench_orchestrator.runtimes.kubernetes.api import Object
from surogate_bench_orchestrator.runtimes.kubernetes.cluster import Cluster
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import FAILED, READY_RESTARTS
from surogate_bench_orchestrator.runtimes.kubernetes.objects.manifests import (
    deployment_manifest,
    job_manifest,
    service_manifest,
)
from surogate_bench_orchestrator.runtimes.kubernetes.objects.pods import complete_request, slots
from surogate_bench_orchestrator.runtimes.kubernetes.observation.observing import (
    Limits,
    TaskObjects,
    TaskState,
    annotations_of,
    observe_job,
    observe_server,
    ready_mark,
    slots_of,
)
from surogate_bench_orchestrator.runtimes.kubernetes.observation.pod_status import (
    age_key,
    containers_with_logs,
    has_ended,
    has_no_suitable_node,
    ready_pod,
    slot_held_until,
)
from surogate_bench_orchestrator.runtimes.kubernetes.settings import ClusterSettings

_log = logging.getLogger(__name__)
_CACHE_PATIENCE_S = 15.0
"""How long the caches may take to contain an object that was just written."""
_POLL_S = 0.05


class KubernetesRuntime(Runtime):
    """A :class:`surogate_bench_orchestrator.ports.Runtime`.

    Args:
        cluster: Connection and caches; started and synced.
        settings: Settings of the installation.
        sweep: Name of the sweep.
        owner: ownerReference of the created objects, so that they are deleted with their owner.
        scheduling: Where the sweep's pods may run; replaces the installation's values.
        clock: Seconds since 1970, comparable with the API server's.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: ClusterSettings,
        *,
        sweep: str,
        owner: Object | None = None,
        scheduling: SchedulingSpec | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        own = scheduling.model_dump(exclude_none=True) if scheduling else {}
        self._cluster = cluster
        self._settings = settings
        self._sweep = sweep
        self._owner = owner
        self._scheduling = SchedulingSpec.model_validate(settings.scheduling.model_dump(exclude_none=True) | own)
        self._clock = clock
        self._held_until = 0.0
        self._no_node_since: dict[str, float] = {}

    @override
    def capacity(self) -> int | None:
        """Return the number of slots; while pods find no room, the number of slots that are placed."""
        if self._slots is None:
            return None
        holders = self._holders()
        if any(observation.unplaced for _, observation in holders):
            return max(1, sum(held for held, observation in holders if not observation.unplaced))
        return self._slots

    @override
    def render(self, task: Task) -> Mapping[str, Any]:
        request = complete_request(task, self._settings, self._scheduling)
        return {
            "name": task.name,
            "slots": task.slots,
            "max_attempts": task.max_attempts,
            "timeout_s": task.timeout_s,
            "request": request.model_dump(mode="json", exclude_none=True),
            "objects": self._objects(task),
        }

    @override
    def submit(self, task: Task) -> None:
        is_new, limit = self._cluster.item(task.name) is None, self._slots
        if is_new and limit and task.slots and sum(held for held, _ in self._holders()) + task.slots > limit:
            raise PermanentError(f"{task.name} needs {task.slots} of the sweep's {limit} slots; too few are free")
        for item in self._objects(task):
            self._cluster.api.create(self._cluster.paths[item["kind"]], item)
        self._wait(lambda: self._cluster.item(task.name) is not None, f"{task.name} to appear")

    @override
    def observe(self, names: Iterable[str]) -> Mapping[str, Observation]:
        pods = self._cluster.pods_by_task()
        held_until = self._last_held(pods)
        items = {name: self._cluster.item(name) for name in names}
        return {
            name: ABSENT if item is None else self._state(item, pods.get(name, []), held_until).observation
            for name, item in items.items()
        }

    def enforce_limits(self, names: Iterable[str]) -> None:
        """Stop tasks that are past a limit, and record what limits are measured from.

        Raises:
            TransientError: the API is unreachable.
            PermanentError: it refuses.
        """
        pods = self._cluster.pods_by_task()
        self._held_until = self._last_held(pods)
        for name in names:
            if (item := self._cluster.item(name)) is not None:
                self._record_suitable_nodes(name, pods.get(name, []))
                self._enforce(item, pods.get(name, []))

    @override
    def endpoint(self, name: str) -> str:
        item = self._cluster.item(name)
        if item is None or item["kind"] != "Deployment":
            raise PermanentError(f"there is no server {name} in namespace {self._cluster.namespace}")
        return f"http://{name}.{self._cluster.namespace}.svc:{SERVER_PORT}"

    @override
    def logs(self, name: str, *, tail: int) -> str:
        pods = sorted(self._cluster.pods_by_task().get(name, []), key=age_key)
        lines: list[str] = []
        for pod in pods:
            path = f"{self._cluster.paths['Pod']}/{pod['metadata']['name']}/log"
            for container in containers_with_logs(pod):
                lines += self._cluster.api.text(path, container=container, tailLines=str(tail)).splitlines()
        return "\n".join(lines[-tail:])

    @override
    def delete(self, name: str) -> None:
        """Delete a task, and wait for its pods to end within their grace period: a lost node cannot confirm it."""
        item = self._cluster.item(name)
        if item is None:
            return
        for kind in ("Deployment", "Service") if item["kind"] == "Deployment" else ("Job",):
            self._cluster.api.delete(f"{self._cluster.paths[kind]}/{name}")
        self._wait(lambda: self._cluster.item(name) is None, f"{name} to be deleted")
        try:
            self._wait(lambda: not self._pods_left(name), f"the pods of {name} to end", self._grace_s)
        except TransientError as error:
            _log.warning("%s; continuing without", error)

    def retire(self, name: str) -> None:
        """Schedule the removal of a finished Job; called once its result is in the store."""
        job = self._cluster.item(name)
        if job is not None and job["kind"] == "Job" and "ttlSecondsAfterFinished" not in job["spec"]:
            ttl = {"spec": {"ttlSecondsAfterFinished": self._settings.ttl_after_finished_s}}
            self._cluster.api.patch(f"{self._cluster.paths['Job']}/{name}", ttl)

    @property
    def _slots(self) -> int | None:
        return slots(self._settings, self._scheduling)

    @property
    def _grace_s(self) -> float:
        return self._settings.termination_grace_s + _CACHE_PATIENCE_S

    @property
    def _limits(self) -> Limits:
        settings = self._settings
        return Limits(settings.unschedulable_grace_s, settings.start_grace_s, settings.placement_timeout_s)

    def _objects(self, task: Task) -> list[Object]:
        """Return the objects of a task in the order of their creation: a server counts as submitted with the last."""
        if isinstance(task.request, ServeRequest):
            return [
                service_manifest(task, self._settings, self._owner),
                deployment_manifest(task, self._settings, self._scheduling, self._owner),
            ]
        return [job_manifest(task, self._settings, self._scheduling, self._owner)]

    def _state(self, item: Object, pods: list[Object], held_until: float) -> TaskState:
        name = item["metadata"]["name"]
        task = TaskObjects(
            item=item,
            pods=pods,
            events=self._cluster.unbound_claims() if pods else self._cluster.refusals(name),
            progress=self._cluster.progress(pods),
            now=self._clock(),
            held_until=held_until,
            no_node_since=self._no_node_since.get(name, self._clock()),
            limits=self._limits,
        )
        return observe_job(task) if item["kind"] == "Job" else observe_server(task)

    def _holders(self) -> list[tuple[int, Observation]]:
        """Return the active tasks of the sweep that hold slots or wait for some, with the number of slots."""
        pods = self._cluster.pods_by_task()
        held_until = self._last_held(pods)
        items = [item for item in self._cluster.of_sweep(self._sweep) if slots_of(item)]
        states = [
            (slots_of(item), self._state(item, pods.get(item["metadata"]["name"], []), held_until)) for item in items
        ]
        return [(held, state.observation) for held, state in states if state.observation.phase.is_active]

    def _last_held(self, pods: Mapping[str, list[Object]]) -> float:
        """Return when a pod of the sweep last held a slot: other tasks of the sweep may be waiting for it."""
        holders = [item["metadata"]["name"] for item in self._cluster.of_sweep(self._sweep) if slots_of(item)]
        ends = [slot_held_until(pod, self._clock()) for name in holders for pod in pods.get(name, [])]
        return max([self._held_until, *ends])

    def _record_suitable_nodes(self, name: str, pods: list[Object]) -> None:
        """Record since when no node can run a task's pod: a suitable node may just have been removed."""
        if any(has_no_suitable_node(pod) for pod in pods):
            self._no_node_since.setdefault(name, self._clock())
        else:
            self._no_node_since.pop(name, None)

    def _enforce(self, item: Object, pods: list[Object]) -> None:
        exceeded = self._state(item, pods, self._held_until).exceeded
        if exceeded is not None:
            self._stop(item, exceeded)
        elif item["kind"] == "Deployment":
            self._record_readiness(item, pods)

    def _stop(self, item: Object, failure: Termination) -> None:
        """Mark a task as failed and stop its pods: a Job by its own deadline, which makes it Failed."""
        path = f"{self._cluster.paths[item['kind']]}/{item['metadata']['name']}"
        stop = {"activeDeadlineSeconds": 1} if item["kind"] == "Job" else {"replicas": 0}
        mark = {FAILED: json.dumps({"reason": failure.reason, "message": failure.message})}
        self._cluster.api.patch(path, {"metadata": {"annotations": mark}, "spec": stop})

    def _record_readiness(self, item: Object, pods: list[Object]) -> None:
        pod = ready_pod(pods)
        if pod is not None and annotations_of(item).get(READY_RESTARTS) != ready_mark(pod):
            path = f"{self._cluster.paths['Deployment']}/{item['metadata']['name']}"
            self._cluster.api.patch(path, {"metadata": {"annotations": {READY_RESTARTS: ready_mark(pod)}}})

    def _pods_left(self, name: str) -> bool:
        return any(not has_ended(pod) for pod in self._cluster.pods_by_task().get(name, []))

    def _wait(self, done: Callable[[], bool], what: str, timeout_s: float = _CACHE_PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise TransientError(f"waited {timeout_s:g} s for {what}")
            time.sleep(_POLL_S)
