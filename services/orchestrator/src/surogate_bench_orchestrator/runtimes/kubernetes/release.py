"""The chart's own Deployments; read when a component of the release does not respond."""

import logging

from surogate_bench.errors import BenchError
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api, Object
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import COMPONENT, INSTANCE
from surogate_bench_orchestrator.runtimes.kubernetes.release_health import Component, claims_of, why_not_ready

_log = logging.getLogger(__name__)

_STORE, _STORE_VALUES = "object-store", "objectStore.bundled"


class Release:
    """An installed chart.

    Args:
        api: Connection.
        namespace: Namespace of the release.
        instance: Name of the release.
    """

    def __init__(self, api: Api, namespace: str, instance: str) -> None:
        self._api = api
        self._apps = f"/apis/apps/v1/namespaces/{namespace}"
        self._core = f"/api/v1/namespaces/{namespace}"
        self._instance = instance

    def why_store_is_not_ready(self) -> str:
        """Return why the bundled store is not ready; empty if it is, if there is none, or if the API is unreachable."""
        query = {"labelSelector": f"{INSTANCE}={self._instance},{COMPONENT}={_STORE}"}
        try:
            deployments = self._api.list(f"{self._apps}/deployments", **query)
            if not deployments:
                return ""
            pods = self._api.list(f"{self._core}/pods", **query)
            names = [name for pod in pods for name in (pod["metadata"]["name"], *claims_of(pod))]
            events = [event for name in dict.fromkeys(names) for event in self._events(name)]
        except BenchError as error:
            _log.warning("the pods of the bundled store could not be listed: %s", error)
            return ""
        return why_not_ready(Component(deployment=deployments[0], pods=pods, events=events, values=_STORE_VALUES))

    def _events(self, name: str) -> list[Object]:
        return self._api.list(f"{self._core}/events", fieldSelector=f"involvedObject.name={name}")
