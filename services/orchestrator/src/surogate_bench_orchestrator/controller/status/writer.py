"""Write status and Events of RecipeSweeps: what changed, once, and figures of running tasks not too often."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from surogate_bench.errors import PermanentError
from surogate_bench_orchestrator.adapters.kubernetes.labels import MANAGER
from surogate_bench_orchestrator.controller.status.document import Status, differs_in_figures_only, status_of
from surogate_bench_orchestrator.controller.status.transitions import Note, notes_of
from surogate_bench_orchestrator.controller.sweep.standing import Standing
from surogate_bench_orchestrator.resource import API_VERSION, KIND, PLURAL

_log = logging.getLogger(__name__)

_FIGURES_EVERY_S = 10.0
_FIGURES_EVERY_S_PER_RUN = 0.05
"""A status of a thousand rows is half a megabyte, which the API server need not store every ten seconds."""


class StatusApi(Protocol):
    """The requests that are needed; see :class:`surogate_bench_orchestrator.adapters.kubernetes.api.Api`."""

    def apply(self, path: str, body: dict[str, Any], *, manager: str, force: bool = True) -> dict[str, Any]:
        """Server-side apply."""
        ...

    def create(self, path: str, body: dict[str, Any]) -> bool:
        """Create; False if there is one of that name."""
        ...

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Merge-patch; None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class _Written:
    status: Status
    at: float


class StatusWriter:
    """Writes statuses; used by one thread a sweep.

    Events come first and have names made from the transition: killed between the two writes, the next controller sees
    the same transition again and finds its Events there.

    Args:
        api: For the requests.
        clock: Seconds that never go back.
        wall: The time of day.
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
        """By uid: fresher than what a watch has brought back."""

    def current(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """The status of a resource as it is now."""
        written = self._written.get(item["metadata"]["uid"])
        return written.status if written else item.get("status") or {}

    def write(self, item: Mapping[str, Any], standing: Standing) -> None:
        """Bring the status up to date.

        Raises:
            TransientError: the API is away.
            PermanentError: it refuses.
        """
        previous = self.current(item)
        status = status_of(standing, previous, _rfc3339(self._wall()))
        if status == previous:
            return
        if differs_in_figures_only(status, previous) and not self._is_due(item, status):
            return
        try:
            for note in notes_of(previous, status):
                self._tell(item, note)
        except PermanentError as error:
            _log.warning("an Event was refused: %s", error)  # the status tells the same
        self._apply(item, status)

    def acknowledge(self, item: Mapping[str, Any]) -> None:
        """Say of a finished sweep that its latest generation was seen, which changes nothing else."""
        current = self.current(item)
        generation = item["metadata"]["generation"]
        if current.get("observedGeneration") != generation:
            conditions = [{**each, "observedGeneration": generation} for each in current.get("conditions") or ()]
            self._apply(item, {**current, "observedGeneration": generation, "conditions": conditions})

    def forget(self, uids_alive: set[str]) -> None:
        """Forget resources that are gone."""
        for uid in self._written.keys() - uids_alive:
            self._written.pop(uid, None)

    def _is_due(self, item: Mapping[str, Any], status: Status) -> bool:
        written = self._written.get(item["metadata"]["uid"])
        every = max(_FIGURES_EVERY_S, _FIGURES_EVERY_S_PER_RUN * len(status.get("runs", ())))
        return written is None or self._clock() - written.at >= every

    def _apply(self, item: Mapping[str, Any], status: Status) -> None:
        metadata = item["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace, "uid": metadata["uid"]},
            "status": status,
        }
        path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status"
        self._api.apply(path, body, manager=MANAGER)
        self._written[metadata["uid"]] = _Written(status, self._clock())

    def _tell(self, item: Mapping[str, Any], note: Note) -> None:
        metadata, now = item["metadata"], _rfc3339(self._wall())
        namespace = metadata["namespace"]
        identity = hashlib.sha256(f"{metadata['uid']}/{note.reason}/{note.key}".encode()).hexdigest()[:16]
        name = f"{metadata['name']}.{identity}"
        event = {
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
            "type": note.kind,
            "reason": note.reason,
            "message": note.message,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        path = f"/api/v1/namespaces/{namespace}/events"
        if not self._api.create(path, event):
            self._api.patch(f"{path}/{name}", {"lastTimestamp": now})


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
