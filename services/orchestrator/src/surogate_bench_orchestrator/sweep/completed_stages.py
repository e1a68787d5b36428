"""The completed stages of a sweep, read from the store with few requests."""

from collections.abc import Iterable

from surogate_bench.layout import manifest_key
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import read_manifest
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.tasks import Task


class CompletedStages:
    """Manifests of a sweep. Each is read once; :meth:`read` and :meth:`read_all` read further ones.

    Details are dropped: the lists of files of a large sweep would take too much memory.

    Args:
        store: Store of the results.
        plan: Plan of the sweep.
    """

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        self._store = store
        self._plan = plan
        self.manifests: dict[str, Manifest] = {}
        """Manifests of finished stages by task name."""

    @property
    def done(self) -> frozenset[str]:
        """Names of the tasks that are known to be complete."""
        return frozenset(self.manifests)

    def read_all(self) -> None:
        """Read every manifest that exists, with one listing.

        Raises:
            TransientError: the store is unavailable.
            PermanentError: the store refuses, or a manifest cannot be parsed.
        """
        present = {info.key for info in self._store.list(f"{self._plan.layout.root}/")}
        self.read(task for task in self._plan.tasks if task.output and manifest_key(task.output) in present)

    def read(self, tasks: Iterable[Task]) -> None:
        """Read the manifests of these tasks, if they exist.

        Raises:
            TransientError: the store is unavailable.
            PermanentError: the store refuses, or a manifest cannot be parsed.
        """
        for task in tasks:
            if task.output is None or task.name in self.manifests:
                continue
            if manifest := read_manifest(self._store, task.output):
                self.manifests[task.name] = manifest.without_details()
