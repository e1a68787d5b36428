"""Runs the tasks of one sweep as Jobs and Deployments.

Every task is one object, named as the task, so that submitting it twice makes it once; a server has a Service besides.
What Kubernetes does not do by itself is done while observing: giving up what cannot get a node, an image or a Secret,
and holding deadlines that begin when a pod gets its node.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from surogate_bench.contract import SERVER_PORT
from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.progress import Termination
from surogate_bench.requests import ServeRequest
from surogate_bench_orchestrator.adapters.kubernetes.api import Object
from surogate_bench_orchestrator.adapters.kubernetes.cluster import Cluster
from surogate_bench_orchestrator.adapters.kubernetes.labels import CONTAINER, FAILED, READY_RESTARTS
from surogate_bench_orchestrator.adapters.kubernetes.manifests import (
    deployment_manifest,
    job_manifest,
    service_manifest,
)
from surogate_bench_orchestrator.adapters.kubernetes.observing import (
    Limits,
    Seen,
    Verdict,
    annotations_of,
    observe_job,
    observe_server,
    ready_mark,
    slots_of,
)
from surogate_bench_orchestrator.adapters.kubernetes.pod_status import (
    age_key,
    has_ended,
    held_until,
    is_hopeless,
    ready_pod,
)
from surogate_bench_orchestrator.adapters.kubernetes.pods import complete_request, slots
from surogate_bench_orchestrator.adapters.kubernetes.settings import ClusterSettings
from surogate_bench_orchestrator.domain.tasks import ABSENT, Observation, Task
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec

_log = logging.getLogger(__name__)
_CACHE_PATIENCE_S = 15.0
"""How long the caches may take to show what was just written."""
_POLL_S = 0.05


class KubernetesRuntime:
    """See :class:`surogate_bench_orchestrator.ports.Runtime`.

    Args:
        cluster: Connection and caches; started and synced.
        settings: Of the installation.
        sweep: Name of the sweep.
        owner: ownerReference of what is made, so that it goes with its owner.
        scheduling: Where the sweep's pods may run, in place of the installation's.
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
        self._hopeless_since: dict[str, float] = {}

    def capacity(self) -> int | None:
        """See :class:`Runtime`. Where pods find no room, there are as many slots as have found some."""
        if self._slots is None:
            return None
        holders = self._holders()
        if any(seen.unplaced for _, seen in holders):
            return max(1, sum(held for held, seen in holders if not seen.unplaced))
        return self._slots

    def render(self, task: Task) -> Mapping[str, Any]:
        """See :class:`Runtime`."""
        request = complete_request(task, self._settings, self._scheduling)
        return {
            "name": task.name,
            "slots": task.slots,
            "max_attempts": task.max_attempts,
            "timeout_s": task.timeout_s,
            "request": request.model_dump(mode="json", exclude_none=True),
            "objects": self._objects(task),
        }

    def submit(self, task: Task) -> None:
        """See :class:`Runtime`.

        Raises:
            PermanentError: the API refuses the objects, or every slot is taken.
        """
        is_new, limit = self._cluster.item(task.name) is None, self._slots
        if is_new and limit and task.slots and sum(held for held, _ in self._holders()) + task.slots > limit:
            raise PermanentError(f"{task.name} needs a slot; all {limit} are taken")
        for item in self._objects(task):
            self._cluster.api.create(self._cluster.paths[item["kind"]], item)
        self._wait(lambda: self._cluster.item(task.name) is not None, f"{task.name} to appear")

    def observe(self, names: Iterable[str]) -> Mapping[str, Observation]:
        """See :class:`Runtime`. Reads the caches only, but for what has to be given up now."""
        pods = self._cluster.pods_by_task()
        self._note_holders()
        seen = {}
        for name in names:
            item = self._cluster.item(name)
            if item is None:
                seen[name] = ABSENT
                continue
            verdict = self._observe(item, pods.get(name, []))
            if verdict.give_up is not None:
                self._give_up(item, verdict.give_up)
            elif item["kind"] == "Deployment":
                self._remember_readiness(item, pods.get(name, []))
            seen[name] = verdict.seen
        return seen

    def endpoint(self, name: str) -> str:
        """See :class:`Runtime`.

        Raises:
            PermanentError: there is no such server.
        """
        item = self._cluster.item(name)
        if item is None or item["kind"] != "Deployment":
            raise PermanentError(f"there is no server {name} in namespace {self._cluster.namespace}")
        return f"http://{name}.{self._cluster.namespace}.svc:{SERVER_PORT}"

    def logs(self, name: str, *, tail: int) -> str:
        """See :class:`Runtime`."""
        pods = sorted(self._cluster.pods_by_task().get(name, []), key=age_key)
        lines: list[str] = []
        for pod in pods:
            path = f"{self._cluster.paths['Pod']}/{pod['metadata']['name']}/log"
            lines += self._cluster.api.text(path, container=CONTAINER, tailLines=str(tail)).splitlines()
        return "\n".join(lines[-tail:])

    def delete(self, name: str) -> None:
        """See :class:`Runtime`. Waits for the pods to end, within their grace: a lost node cannot confirm it."""
        item = self._cluster.item(name)
        if item is None:
            return
        for kind in ("Deployment", "Service") if item["kind"] == "Deployment" else ("Job",):
            self._cluster.api.delete(f"{self._cluster.paths[kind]}/{name}")
        self._wait(lambda: self._cluster.item(name) is None, f"{name} to go")
        try:
            self._wait(lambda: not self._pods_left(name), f"the pods of {name} to end", self._grace_s)
        except TransientError as error:
            _log.warning("%s; going on without", error)

    def retire(self, name: str) -> None:
        """Have a finished Job removed after a while; call this once its result is in the store."""
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
        """Objects of a task in the order in which they are made: a server counts as submitted by its last one."""
        if isinstance(task.request, ServeRequest):
            return [
                service_manifest(task, self._settings, self._owner),
                deployment_manifest(task, self._settings, self._scheduling, self._owner),
            ]
        return [job_manifest(task, self._settings, self._scheduling, self._owner)]

    def _observe(self, item: Object, pods: list[Object]) -> Verdict:
        seen = Seen(
            item=item,
            pods=pods,
            events=self._cluster.unmet_claims() if pods else self._cluster.refusals(item["metadata"]["name"]),
            progress=self._cluster.progress(pods),
            now=self._clock(),
            held_until=self._held_until,
            hopeless_since=self._note_hopeless(item["metadata"]["name"], pods),
            limits=self._limits,
        )
        return observe_job(seen) if item["kind"] == "Job" else observe_server(seen)

    def _holders(self) -> list[tuple[int, Observation]]:
        """Active tasks of the sweep that hold slots, or wait for room to; with how many."""
        pods = self._cluster.pods_by_task()
        items = [item for item in self._cluster.of_sweep(self._sweep) if slots_of(item)]
        seen = [(slots_of(item), self._observe(item, pods.get(item["metadata"]["name"], [])).seen) for item in items]
        return [(held, each) for held, each in seen if each.phase.is_active]

    def _note_holders(self) -> None:
        """Remember when a pod of the sweep last held a slot: those that wait behind it are not out of room."""
        pods = self._cluster.pods_by_task()
        holders = [item["metadata"]["name"] for item in self._cluster.of_sweep(self._sweep) if slots_of(item)]
        ends = [held_until(pod, self._clock()) for name in holders for pod in pods.get(name, [])]
        self._held_until = max([self._held_until, *ends])

    def _note_hopeless(self, name: str, pods: list[Object]) -> float:
        """Remember since when no node can run a task's pod: the nodes that could may have gone a moment ago."""
        if any(is_hopeless(pod) for pod in pods):
            return self._hopeless_since.setdefault(name, self._clock())
        self._hopeless_since.pop(name, None)
        return 0.0

    def _give_up(self, item: Object, why: Termination) -> None:
        """Mark a task as failed and stop its pods: a Job by its own deadline, which makes it Failed."""
        path = f"{self._cluster.paths[item['kind']]}/{item['metadata']['name']}"
        stop = {"activeDeadlineSeconds": 1} if item["kind"] == "Job" else {"replicas": 0}
        mark = {FAILED: json.dumps({"reason": why.reason, "message": why.message})}
        self._cluster.api.patch(path, {"metadata": {"annotations": mark}, "spec": stop})

    def _remember_readiness(self, item: Object, pods: list[Object]) -> None:
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
