"""The chart's own Deployments as they are now: asked for when something of the release does not answer."""

import logging

from surogate_bench.errors import BenchError
from surogate_bench_orchestrator.adapters.kubernetes.api import Api, Object
from surogate_bench_orchestrator.adapters.kubernetes.labels import COMPONENT, INSTANCE
from surogate_bench_orchestrator.adapters.kubernetes.release_health import Part, claims_of, why_not_ready

_log = logging.getLogger(__name__)

_STORE, _STORE_VALUES = "object-store", "objectStore.bundled"


class Release:
    """An installed chart.

    Args:
        api: Connection.
        namespace: Where it lives.
        instance: Its name.
    """

    def __init__(self, api: Api, namespace: str, instance: str) -> None:
        self._api = api
        self._apps = f"/apis/apps/v1/namespaces/{namespace}"
        self._core = f"/api/v1/namespaces/{namespace}"
        self._instance = instance

    def store_trouble(self) -> str:
        """Say why the bundled store is not ready; empty if it is, if there is none, or if the API does not answer."""
        query = {"labelSelector": f"{INSTANCE}={self._instance},{COMPONENT}={_STORE}"}
        try:
            deployments = self._api.list(f"{self._apps}/deployments", **query)
            if not deployments:
                return ""
            pods = self._api.list(f"{self._core}/pods", **query)
            names = [name for pod in pods for name in (pod["metadata"]["name"], *claims_of(pod))]
            events = [event for name in dict.fromkeys(names) for event in self._events(name)]
        except BenchError as error:
            _log.warning("the pods of the bundled store could not be looked at: %s", error)
            return ""
        return why_not_ready(Part(deployment=deployments[0], pods=pods, events=events, values=_STORE_VALUES))

    def _events(self, name: str) -> list[Object]:
        return self._api.list(f"{self._core}/events", fieldSelector=f"involvedObject.name={name}")
