"""The interface to a cluster that the command line uses."""

from dataclasses import dataclass
from typing import Any, Protocol

from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import CONTAINER

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod with logs, or with an HTTP port."""

    name: str
    ready: bool
    stage: str = ""
    created: str = ""
    """RFC 3339."""
    containers: tuple[str, ...] = (CONTAINER,)
    """Those that have logs, in the order in which they ran."""


class ClusterApi(Protocol):
    """One namespace of a cluster.

    Methods raise TransientError when the cluster is unavailable, and PermanentError when it refuses; calls may be
    repeated.
    """

    @property
    def namespace(self) -> str:
        """The namespace."""
        ...

    def check(self) -> None:
        """Check that the cluster knows RecipeSweeps.

        Raises:
            ConfigError: surogate-bench is not installed.
        """
        ...

    def get(self, name: str) -> Resource | None:
        """Read a RecipeSweep; None if there is none."""
        ...

    def apply(self, manifest: Resource) -> Resource:
        """Server-side apply a RecipeSweep, and return it as stored.

        Raises:
            ConfigError: the API server finds the manifest invalid.
        """
        ...

    def controllers(self) -> list[Pod]:
        """List the controller's pods."""
        ...

    def pods(self, sweep: str, **labels: str) -> list[Pod]:
        """List a sweep's pods, oldest first; ``labels`` (``run``, ``stage``) narrow them down."""
        ...

    def log(self, pod: Pod, *, tail: int) -> str:
        """Return the last lines that a pod wrote; empty if there are none.

        Raises:
            PermanentError: it has not started, or is gone.
        """
        ...

    def download(self, pod: Pod, path: str) -> bytes:
        """GET a path from a controller's pod.

        Raises:
            PermanentError: it is not there.
        """
        ...
