"""Caches of API objects as plain dictionaries, kept up to date by watches (kubernetes.informer)."""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiClient, ApiException
from kubernetes.informer import ADDED, DELETED, ERROR, MODIFIED, SharedInformer

from surogate_bench.errors import TransientError
from surogate_bench_orchestrator.runtimes.kubernetes.api import CONNECT_TIMEOUT_S, Object

_log = logging.getLogger(__name__)
logging.getLogger("kubernetes.informer.informer").setLevel(logging.CRITICAL)  # it logs tracebacks; see _log_error

_RESYNC_S = 600
"""Between full lists."""
_IDLE_S = 30.0
"""Beyond the watch's own end: how long a silent connection is trusted."""
_PAUSE_S = 1.0
"""Between attempts while the API is unreachable; the library itself would retry immediately."""


@dataclass(frozen=True, slots=True)
class _ListMeta:
    resource_version: str


@dataclass(frozen=True, slots=True)
class _ObjectList:
    items: list[Object]
    metadata: _ListMeta


class Informer:
    """Objects of one kind.

    Args:
        client: Connection.
        path: Path of the collection, for example ``/apis/batch/v1/namespaces/NS/jobs``.
        label_selector: Which ones.
        field_selector: Which ones.
        on_change: Called with an object that was added, changed or deleted, in the informer's thread.
        trim: Removes unused parts of an object before it is cached; managedFields are never cached.
    """

    def __init__(
        self,
        client: ApiClient,
        path: str,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        on_change: Callable[[Object], None] = lambda _: None,
        trim: Callable[[Object], None] = lambda _: None,
    ) -> None:
        def trimmed(item: Object) -> None:  # the cache's own object
            item["metadata"].pop("managedFields", None)
            trim(item)

        self._client = client
        self._trimmed = trimmed
        self._path = path
        self._synced = threading.Event()
        self._stopping = threading.Event()
        self._informer = SharedInformer(
            self._list_or_watch,
            resync_period=_RESYNC_S,
            label_selector=label_selector,
            field_selector=field_selector,
            key_func=_name_of,
        )
        for kind in (ADDED, MODIFIED):
            self._informer.add_event_handler(kind, trimmed)
        for kind in (ADDED, MODIFIED, DELETED):
            self._informer.add_event_handler(kind, on_change)
        self._informer.add_event_handler(ERROR, self._log_error)

    def start(self) -> None:
        """Start to list and watch, in a thread."""
        self._informer.start()

    def stop(self) -> None:
        """Stop the watch."""
        self._stopping.set()
        self._informer.stop()

    def wait_until_synced(self, timeout_s: float) -> None:
        """Wait for the first list.

        Raises:
            TransientError: it took longer than ``timeout_s``.
        """
        if not self._synced.wait(timeout_s):
            raise TransientError(f"the Kubernetes API did not list {self._path} within {timeout_s:g} s")

    def objects(self) -> list[Object]:
        """Return all cached objects."""
        return list(self._informer.cache.list())

    def get(self, name: str) -> Object | None:
        """Return a cached object; None if there is none."""
        found: Object | None = self._informer.cache.get_by_key(name)
        return found

    def _log_error(self, error: object) -> None:
        """Log in one line why the watch is restarted; it is not called for its regular end."""
        if not self._stopping.is_set():
            _log.warning("the watch of %s is restarted: %s", self._path, str(error).splitlines()[0])

    def _list_or_watch(self, **options: Any) -> Any:  # noqa: ANN401 - a list, or the open response of a watch
        """List, or watch if ``watch`` is set.

        :rtype: object
        """
        try:
            return self._request(**options)
        except Exception:
            self._stopping.wait(_PAUSE_S)
            raise

    def _request(
        self,
        *,
        watch: bool = False,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int | None = None,
        **_: object,
    ) -> Any:  # noqa: ANN401 - see _list_or_watch
        if watch:
            self._synced.set()  # the library watches only once its cache holds the first list
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "resourceVersion": resource_version,
            "watch": "true" if watch else None,
            "allowWatchBookmarks": "true" if watch else None,
            "timeoutSeconds": str(timeout_seconds) if timeout_seconds else None,
        }
        request = self._client.param_serialize(
            "GET",
            self._path,
            query_params=[(name, value) for name, value in query.items() if value is not None],
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        patience = (timeout_seconds or _RESYNC_S) + _IDLE_S if watch else _IDLE_S
        answer = self._client.call_api(*request, _request_timeout=(CONNECT_TIMEOUT_S, patience))
        if watch and answer.status == 200:  # noqa: PLR2004 - HTTP OK
            return answer.response
        data = answer.read()
        if answer.status != 200:  # noqa: PLR2004 - HTTP OK
            raise ApiException(status=answer.status, reason=answer.reason, body=data.decode(errors="replace"))
        listed = json.loads(data)
        items = listed.get("items") or []
        for item in items:
            self._trimmed(item)
        return _ObjectList(items, _ListMeta(listed["metadata"]["resourceVersion"]))


def _name_of(item: Object) -> str:
    return str(item["metadata"]["name"])
