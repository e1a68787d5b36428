"""Which stages of a sweep are done, asked of the store as seldom as possible."""

from collections.abc import Iterable

from surogate_bench.layout import manifest_key
from surogate_bench.manifest import Manifest
from surogate_bench.stages import read_manifest
from surogate_bench.store import ObjectStore
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.tasks import Task


class StageFacts:
    """Manifests of a sweep. One that was seen stays; others are looked for when asked to.

    Kept is what decides and is shown: a large sweep's lists of files would fill the memory.
    """

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        self._store = store
        self._plan = plan
        self.manifests: dict[str, Manifest] = {}
        """By task name."""

    @property
    def done(self) -> frozenset[str]:
        """Names of the tasks known to be done."""
        return frozenset(self.manifests)

    def read_all(self) -> None:
        """Look for every manifest, with one listing.

        Raises:
            TransientError: the store is away.
            PermanentError: the store refuses, or a manifest cannot be understood.
        """
        present = {info.key for info in self._store.list(f"{self._plan.layout.root}/")}
        self.read(task for task in self._plan.tasks if task.output and manifest_key(task.output) in present)

    def read(self, tasks: Iterable[Task]) -> None:
        """Look for the manifests of these tasks.

        Raises:
            TransientError: the store is away.
            PermanentError: the store refuses, or a manifest cannot be understood.
        """
        for task in tasks:
            if task.output is None or task.name in self.manifests:
                continue
            if manifest := read_manifest(self._store, task.output):
                self.manifests[task.name] = manifest.without_details()
