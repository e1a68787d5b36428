"""Follow a sweep on a cluster until it ends, even if the cluster is unavailable for some time."""

import logging
from collections.abc import Callable
from typing import TypeVar

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench_orchestrator.cli.targets.cluster.cluster_api import ClusterApi, Resource
from surogate_bench_orchestrator.cli.targets.cluster.sweep import ClusterSweep, read_resource
from surogate_bench_orchestrator.ports import Clock

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

POLL_S = 2.0
UNAVAILABLE_TIMEOUT_S = 600.0
"""How long the cluster may be unavailable without interruption."""
ADMISSION_TIMEOUT_S = 120.0
"""How long a sweep may stay unobserved or not admitted: the cause may pass, such as a Secret that is created later."""


class Follower:
    """Follows one sweep.

    Args:
        api: The cluster.
        clock: For waiting.
        check: Called before every wait; raises to stop.
        show: Called with the sweep after every poll.
    """

    def __init__(
        self, api: ClusterApi, clock: Clock, check: Callable[[], None], show: Callable[[ClusterSweep], None]
    ) -> None:
        self._api = api
        self._clock = clock
        self._check = check
        self._show = show
        self._waiting_since: float | None = None

    def follow(self, resource: Resource) -> ClusterSweep:
        """Follow a sweep until it has ended or is refused.

        Raises:
            TransientError: the cluster was unavailable for too long.
            PermanentError: the sweep was deleted, or no controller has observed it.
        """
        first = read_resource(resource)
        sweep = first
        while True:
            self._show(sweep)
            if sweep.finished or sweep.rejected or self._is_refused_for_long(sweep):
                return sweep
            self._check()
            self._clock.sleep(POLL_S)
            found = self.retry(lambda: self._api.get(first.name))
            if found is None or found["metadata"].get("uid") != first.uid:
                raise PermanentError(f"sweep {first.name} was deleted from namespace {self._api.namespace}")
            sweep = read_resource(found)

    def retry(self, call: Callable[[], _Result]) -> _Result:
        """Repeat a call while the cluster is unavailable.

        Raises:
            TransientError: it was unavailable for too long.
        """
        since = self._clock.now()
        logged = False
        while True:
            try:
                return call()
            except TransientError as error:
                if self._clock.now() - since > UNAVAILABLE_TIMEOUT_S:
                    raise TransientError(
                        f"the cluster has been unavailable for {UNAVAILABLE_TIMEOUT_S:g} s: {error}"
                    ) from error
                if not logged:
                    _log.warning("the cluster is unavailable; retrying until it responds: %s", error)
                    logged = True
            self._check()
            self._clock.sleep(POLL_S)

    def _is_refused_for_long(self, sweep: ClusterSweep) -> bool:
        """Return whether a sweep has not been admitted for too long.

        Raises:
            PermanentError: no controller has observed it for too long.
        """
        if sweep.observed and not sweep.refusal:
            self._waiting_since = None
            return False
        now = self._clock.now()
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        if now - self._waiting_since <= ADMISSION_TIMEOUT_S:
            return False
        if sweep.observed:
            return True
        raise PermanentError(
            f"no controller has observed sweep {sweep.name} for {ADMISSION_TIMEOUT_S:g} s; see its log: "
            f"kubectl logs --namespace {self._api.namespace} --selector app.kubernetes.io/component=orchestrator"
        )
