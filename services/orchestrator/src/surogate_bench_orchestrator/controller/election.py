"""Leader election: of several replicas, the holder of the Lease is the leader."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes.client import ApiClient, ApiException, CoordinationV1Api
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

_log = logging.getLogger(__name__)

LEASE = "surogate-bench-controller"
_LEASE_S, _RENEW_S, _RETRY_S = 15, 10, 3
"""Validity without renewal; time after which renewal is given up; interval between attempts. Seconds."""
_CALL_TIMEOUT_S = (2.0, 4.0)
"""Timeouts for connecting and for the response: a call that hangs must not outlast the lease."""


class Election:
    """One candidate.

    Args:
        client: Connection.
        namespace: Namespace of the Lease.
        identity: Unique name of this replica.
        on_started: Called once when this replica becomes the leader, in a thread.
        on_lost: Called when it is no longer the leader and must stop at once.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        identity: str,
        *,
        on_started: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        logging.getLogger("leaderelection").setLevel(logging.WARNING)  # it logs every renewal
        self._lock = _Lock(client, namespace, identity)
        self._config = Config(
            self._lock,
            lease_duration=_LEASE_S,
            renew_deadline=_RENEW_S,
            retry_period=_RETRY_S,
            onstarted_leading=on_started,
            onstopped_leading=on_lost,
        )
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)
        self._on_lost = on_lost

    def start(self) -> None:
        """Start to participate in the election, in a thread."""
        self._thread.start()

    def release(self) -> None:
        """Stop participating, and release the Lease, so that another replica need not wait until it expires."""
        self._lock.release()

    def _run(self) -> None:
        try:
            LeaderElection(self._config).run()
        except Exception:  # noqa: BLE001 - the thread's boundary: without renewals this replica must not continue
            _log.exception("the election ended unexpectedly")
            self._on_lost()


class _Lock:
    """A LeaseLock on our connection, with deadlines; it does not crash when the API server is unreachable."""

    def __init__(self, client: ApiClient, namespace: str, identity: str) -> None:
        self.name, self.namespace, self.identity = LEASE, namespace, identity
        self._inner = LeaseLock(LEASE, namespace, identity)
        self._inner.api_instance = _PatientApi(client)
        self._guard = threading.Lock()
        self._released = False

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        """Read the Lease."""
        try:
            found: tuple[bool, Any] = self._inner.get(name, namespace)
        except urllib3.exceptions.HTTPError as error:
            return False, ApiException(status=0, reason=str(error))
        return found

    def create(self, name: str, namespace: str, election_record: Any) -> bool:  # noqa: ANN401 - the library's
        """Create the Lease."""
        return self._write(lambda: self._inner.create(name, namespace, election_record))

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:  # noqa: ANN401 - the library's
        """Renew the Lease."""
        return self._write(lambda: self._inner.update(name, namespace, updated_record))

    def release(self) -> None:
        """Release the Lease if this replica holds it, and never acquire it again."""
        with self._guard:
            self._released = True
            try:
                found, record = self._inner.get(self.name, self.namespace)
                if found and record.holder_identity == self.identity:
                    record.holder_identity = ""
                    self._inner.update(self.name, self.namespace, record)
            except (urllib3.exceptions.HTTPError, ValueError, TypeError) as error:
                _log.warning("the Lease could not be released and will expire: %s", error)

    def _write(self, write: Callable[[], bool]) -> bool:
        with self._guard:
            if self._released:
                return False
            try:
                return write()
            except urllib3.exceptions.HTTPError as error:
                _log.warning("the Lease could not be renewed: %s", error)
                return False


class _PatientApi:
    """The three calls of a LeaseLock, each with a deadline."""

    def __init__(self, client: ApiClient) -> None:
        self._api = CoordinationV1Api(client)

    def read_namespaced_lease(self, name: str, namespace: str) -> Any:  # noqa: ANN401 - the library's
        """Read."""
        return self._api.read_namespaced_lease(name, namespace, _request_timeout=_CALL_TIMEOUT_S)

    def create_namespaced_lease(self, namespace: str, body: Any) -> Any:  # noqa: ANN401 - the library's
        """Create."""
        return self._api.create_namespaced_lease(namespace, body, _request_timeout=_CALL_TIMEOUT_S)

    def replace_namespaced_lease(self, *, name: str, namespace: str, body: Any) -> Any:  # noqa: ANN401 - the library's
        """Replace."""
        return self._api.replace_namespaced_lease(name, namespace, body, _request_timeout=_CALL_TIMEOUT_S)
