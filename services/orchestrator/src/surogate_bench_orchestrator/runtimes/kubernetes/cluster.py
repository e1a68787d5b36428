"""Caches of the API objects that the controller created, and the progress of their pods."""

import time
from collections.abc import Callable

from surogate_bench.processes.progress import Progress
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api, Object
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import REQUEST, SWEEP, TASK, selector_of
from surogate_bench_orchestrator.runtimes.kubernetes.observation.informers import Informer
from surogate_bench_orchestrator.runtimes.kubernetes.observation.observing import event_time
from surogate_bench_orchestrator.runtimes.kubernetes.observation.progress_poller import ProgressPoller

_CLAIM_EVENTS_S = 600.0
"""Kubernetes repeats them, though after the first 25 only every five minutes."""


class Cluster:
    """Cached Jobs, Deployments and pods of one release in one namespace.

    Args:
        api: Connection.
        namespace: Namespace of the release.
        instance: Its name.
        on_change: Called with the name of a sweep when an object of it changed, in an informer's thread.
    """

    def __init__(
        self, api: Api, namespace: str, instance: str, on_change: Callable[[str], None] = lambda _: None
    ) -> None:
        def changed(item: Object) -> None:
            if sweep := (item["metadata"].get("labels") or {}).get(SWEEP):
                on_change(sweep)

        def informer(path: str, *, field_selector: str | None = None, ours: bool = True) -> Informer:
            return Informer(
                api.client,
                path,
                label_selector=selector_of(instance) if ours else None,
                field_selector=field_selector,
                on_change=changed,
                trim=_without_request,
            )

        self.api = api
        self.namespace = namespace
        core = f"/api/v1/namespaces/{namespace}"
        self.paths = {
            "Job": f"/apis/batch/v1/namespaces/{namespace}/jobs",
            "Deployment": f"/apis/apps/v1/namespaces/{namespace}/deployments",
            "Service": f"{core}/services",
            "Pod": f"{core}/pods",
        }
        self._jobs = informer(self.paths["Job"])
        self._deployments = informer(self.paths["Deployment"])
        self._pods = informer(self.paths["Pod"])
        self._refusals = informer(f"{core}/events", field_selector="reason=FailedCreate", ours=False)
        self._claims = informer(f"{core}/events", field_selector="reason=ProvisioningFailed", ours=False)
        self._progress = ProgressPoller(self._pods.objects)

    @property
    def _informers(self) -> tuple[Informer, ...]:
        return self._jobs, self._deployments, self._pods, self._refusals, self._claims

    def start(self) -> None:
        """Start to watch, in threads."""
        for informer in self._informers:
            informer.start()

    def poll_progress(self) -> None:
        """Start to poll the progress of running pods, in a thread."""
        self._progress.start()

    def wait_until_synced(self, timeout_s: float) -> None:
        """Wait until every kind was listed once.

        Raises:
            TransientError: it took longer than ``timeout_s``.
        """
        for informer in self._informers:
            informer.wait_until_synced(timeout_s)

    def stop(self) -> None:
        """Stop watching."""
        self._progress.stop()
        for informer in self._informers:
            informer.stop()

    def item(self, name: str) -> Object | None:
        """Return the cached Job or Deployment of a task, with its kind; None if there is none."""
        for kind, informer in (("Job", self._jobs), ("Deployment", self._deployments)):
            if (found := informer.get(name)) is not None:
                return {**found, "kind": kind}
        return None

    def pods_by_task(self) -> dict[str, list[Object]]:
        """Return the cached pods by task name."""
        found: dict[str, list[Object]] = {}
        for pod in self._pods.objects():
            if task := (pod["metadata"].get("labels") or {}).get(TASK):
                found.setdefault(task, []).append(pod)
        return found

    def of_sweep(self, sweep: str) -> list[Object]:
        """Return the cached Jobs and Deployments of a sweep, with their kind."""
        return [
            {**item, "kind": kind}
            for kind, informer in (("Job", self._jobs), ("Deployment", self._deployments))
            for item in informer.objects()
            if (item["metadata"].get("labels") or {}).get(SWEEP) == sweep
        ]

    def refusals(self, name: str) -> list[Object]:
        """Return the Events about why a Job or ReplicaSet got no pod."""
        return [
            event
            for event in self._refusals.objects()
            if str(event["involvedObject"].get("name", "")).rpartition("-")[0] == name
            or event["involvedObject"].get("name") == name
        ]

    def unbound_claims(self) -> list[Object]:
        """Return the recent Events about why volume claims in the namespace are not bound."""
        now = time.time()
        return [event for event in self._claims.objects() if now - event_time(event) < _CLAIM_EVENTS_S]

    def progress(self, pods: list[Object]) -> Progress | None:
        """Return the last progress of the newest of these pods."""
        return self._progress.latest(pods)


def _without_request(item: Object) -> None:
    """Remove the request of a task, which contains the whole sweep, from a Job's template or a pod."""
    template = item.get("spec", {}).get("template", {})
    for metadata in (item["metadata"], template.get("metadata") or {}):
        (metadata.get("annotations") or {}).pop(REQUEST, None)
