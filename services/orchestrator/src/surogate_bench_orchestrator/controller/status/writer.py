"""Writes status and Events of RecipeSweeps: changes at once, and the progress of running tasks at a limited rate."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from surogate_bench.errors import PermanentError
from surogate_bench_orchestrator.controller.status.builder import build_status, differs_in_progress_only
from surogate_bench_orchestrator.controller.status.events import Event, events_between
from surogate_bench_orchestrator.controller.status.state import SweepState
from surogate_bench_orchestrator.resource import API_VERSION, KIND, PLURAL
from surogate_bench_orchestrator.resource.status import SweepStatus
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import MANAGER

_log = logging.getLogger(__name__)

_PROGRESS_EVERY_S = 10.0
_PROGRESS_EVERY_S_PER_RUN = 0.05
"""A status of a thousand rows is half a megabyte, which the API server need not store every ten seconds."""


class StatusApi(Protocol):
    """Requests to the API server, for example a :class:`surogate_bench_orchestrator.runtimes.kubernetes.api.Api`."""

    def apply(self, path: str, body: dict[str, Any], *, manager: str, force: bool = True) -> dict[str, Any]:
        """Server-side apply."""
        ...

    def create(self, path: str, body: dict[str, Any]) -> bool:
        """Create; False if an object of that name exists."""
        ...

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Merge-patch; None if there is no such object."""
        ...


@dataclass(frozen=True, slots=True)
class _Written:
    status: SweepStatus
    at: float


class StatusWriter:
    """Writes statuses; used by one thread for each sweep.

    Events are written first, under names made from the transition: killed between the two writes, the next controller
    finds the same transition again, and its Events present.

    Args:
        api: Sends the requests.
        clock: Monotonic clock, seconds.
        wall: Current time.
    """

    def __init__(
        self,
        api: StatusApi,
        *,
        clock: Callable[[], float],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._clock = clock
        self._wall = wall
        self._written: dict[str, _Written] = {}
        """Statuses by uid that are newer than the object that a watch has returned."""

    def current(self, item: Mapping[str, Any]) -> SweepStatus:
        """Return the current status of a resource."""
        written = self._written.get(item["metadata"]["uid"])
        return written.status if written else SweepStatus.of(item)

    def write(self, item: Mapping[str, Any], state: SweepState) -> None:
        """Bring the status up to date.

        Raises:
            TransientError: the API is unreachable.
            PermanentError: it refuses.
        """
        previous = self.current(item)
        status = build_status(state, previous, _rfc3339(self._wall()))
        if status == previous:
            return
        if differs_in_progress_only(status, previous) and not self._is_due(item, status):
            return
        try:
            for event in events_between(previous, status):
                self._record(item, event)
        except PermanentError as error:
            _log.warning("an Event was refused: %s", error)  # the status has the same information
        self._apply(item, status)

    def acknowledge(self, item: Mapping[str, Any]) -> None:
        """Set the observed generation of a finished sweep, and nothing else."""
        current = self.current(item)
        generation = item["metadata"]["generation"]
        if current.observed_generation != generation:
            update = {"observed_generation": generation}
            conditions = tuple(each.model_copy(update=update) for each in current.conditions)
            self._apply(item, current.model_copy(update={**update, "conditions": conditions}))

    def forget(self, uids_alive: set[str]) -> None:
        """Forget all other resources."""
        for uid in self._written.keys() - uids_alive:
            self._written.pop(uid, None)

    def _is_due(self, item: Mapping[str, Any], status: SweepStatus) -> bool:
        written = self._written.get(item["metadata"]["uid"])
        every = max(_PROGRESS_EVERY_S, _PROGRESS_EVERY_S_PER_RUN * len(status.runs))
        return written is None or self._clock() - written.at >= every

    def _apply(self, item: Mapping[str, Any], status: SweepStatus) -> None:
        metadata = item["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace, "uid": metadata["uid"]},
            "status": status.to_object(),
        }
        path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status"
        self._api.apply(path, body, manager=MANAGER)
        self._written[metadata["uid"]] = _Written(status, self._clock())

    def _record(self, item: Mapping[str, Any], event: Event) -> None:
        metadata, now = item["metadata"], _rfc3339(self._wall())
        namespace = metadata["namespace"]
        identity = hashlib.sha256(f"{metadata['uid']}/{event.reason}/{event.key}".encode()).hexdigest()[:16]
        name = f"{metadata['name']}.{identity}"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": metadata["name"],
                "namespace": namespace,
                "uid": metadata["uid"],
            },
            "type": event.kind,
            "reason": event.reason,
            "message": event.message,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        path = f"/api/v1/namespaces/{namespace}/events"
        if not self._api.create(path, body):
            self._api.patch(f"{path}/{name}", {"lastTimestamp": now})


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
