"""Submit a sweep, and watch it until it ends, bearing with a cluster that is away for a while."""

import logging
from collections.abc import Callable
from typing import TypeVar

from surogate_bench.errors import ConfigError, PermanentError, TransientError
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.cli.cluster.ports import ClusterApi, Resource
from surogate_bench_orchestrator.cli.cluster.standing import Standing, read_standing
from surogate_bench_orchestrator.ports import Clock
from surogate_bench_orchestrator.resource.model import parse_resource, resource_of

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

POLL_S = 2.0
AWAY_S = 600.0
"""How long the cluster may be away in one go."""
TAKE_UP_S = 120.0
"""How long a sweep may be left alone, or not admitted: the cause may pass, such as a Secret that comes later."""


def submit(api: ClusterApi, sweep: RecipeSweep) -> Resource:
    """Apply a sweep's resource; one that is there already is left as it is.

    Returns:
        The resource as stored.

    Raises:
        ConfigError: surogate-bench is not installed, the sweep needs local folders, or another of that name is there.
        TransientError: the cluster is away.
        PermanentError: it refuses.
    """
    manifest = resource_of(sweep, api.namespace)
    api.check()
    if not api.controllers():
        raise ConfigError(
            "no controller of surogate-bench runs there",
            field="namespace",
            value=api.namespace,
            remedy="Choose its namespace with --namespace, or install it: "
            f"helm install surogate-bench charts/ --namespace {api.namespace} --create-namespace",
        )
    present = api.get(sweep.name)
    if present is None:
        return api.apply(manifest)
    if present["metadata"].get("deletionTimestamp"):
        raise ConfigError(
            "is being deleted", field="name", value=sweep.name, remedy="Wait until it is gone, then run it again."
        )
    require_same(present, sweep)
    return present


def require_same(present: Resource, sweep: RecipeSweep) -> None:
    """Make sure that a resource is the experiment that a file describes.

    Raises:
        ConfigError: it is another one.
    """
    try:
        same = parse_resource(present).sweep.spec_hash == sweep.spec_hash
    except ConfigError:
        same = False
    if not same:
        raise ConfigError(
            "the cluster has a sweep of this name with other settings",
            field="name",
            value=sweep.name,
            remedy=f"Choose another name, or delete that one: kubectl delete recipesweep {sweep.name}",
        )


class Follower:
    """Watches one sweep.

    Args:
        api: The cluster.
        clock: For waiting.
        check: Called before every wait; raises to stop.
        show: Called with every new standing.
    """

    def __init__(
        self, api: ClusterApi, clock: Clock, check: Callable[[], None], show: Callable[[Standing], None]
    ) -> None:
        self._api = api
        self._clock = clock
        self._check = check
        self._show = show
        self._idle_since: float | None = None

    def follow(self, resource: Resource) -> Standing:
        """Watch until it has ended or is refused.

        Raises:
            TransientError: the cluster was away for too long.
            PermanentError: the sweep was deleted, or no controller takes it up.
        """
        first = read_standing(resource)
        standing = first
        while True:
            self._show(standing)
            if standing.finished or standing.rejected or self._is_left_alone(standing):
                return standing
            self._check()
            self._clock.sleep(POLL_S)
            present = self.patiently(lambda: self._api.get(first.name))
            if present is None or present["metadata"].get("uid") != first.uid:
                raise PermanentError(f"sweep {first.name} was deleted from namespace {self._api.namespace}")
            standing = read_standing(present)

    def patiently(self, call: Callable[[], _Answer]) -> _Answer:
        """Call until the cluster answers.

        Raises:
            TransientError: it was away for too long.
        """
        since = self._clock.now()
        told = False
        while True:
            try:
                return call()
            except TransientError as error:
                if self._clock.now() - since > AWAY_S:
                    raise TransientError(f"the cluster has been away for {AWAY_S:g} s: {error}") from error
                if not told:
                    _log.warning("the cluster is away; going on when it is back: %s", error)
                    told = True
            self._check()
            self._clock.sleep(POLL_S)

    def _is_left_alone(self, standing: Standing) -> bool:
        """Whether a refusal has lasted.

        Raises:
            PermanentError: no controller looks at the sweep.
        """
        if standing.seen and not standing.refusal:
            self._idle_since = None
            return False
        now = self._clock.now()
        self._idle_since = now if self._idle_since is None else self._idle_since
        if now - self._idle_since <= TAKE_UP_S:
            return False
        if standing.seen:
            return True
        raise PermanentError(
            f"no controller has taken up sweep {standing.name} for {TAKE_UP_S:g} s; see its log: "
            f"kubectl logs --namespace {self._api.namespace} --selector app.kubernetes.io/component=orchestrator"
        )
