"""A namespace of a cluster in memory, and the command line on it."""

import io
import tarfile
from pathlib import Path
from typing import Any

from rich.console import Console
from stand_ins.clock import FakeClock
from sweeps import fitting_document
from typing_extensions import override

from surogate_bench.errors import BenchError, ExitCode, PermanentError
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench_orchestrator.cli.targets.cluster.cluster_api import ClusterApi, Pod, Resource
from surogate_bench_orchestrator.cli.targets.cluster.target import ClusterTarget
from surogate_bench_orchestrator.cli.targets.target import ClusterOptions, SweepArgument
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles
from surogate_bench_orchestrator.ports import Clock
from surogate_bench_orchestrator.resource.model import resource_of

CONTROLLER = Pod(name="surogate-bench-0", ready=True)
Status = dict[str, Any]


class MemoryCluster(ClusterApi):
    """A namespace whose controller writes one status after another, one for each read of the resource.

    Args:
        statuses: What it writes; an error is raised instead, and None deletes the resource. The last one stays.
    """

    def __init__(self, *statuses: Status | BenchError | None) -> None:
        self.statuses = list(statuses)
        self.stored: dict[str, Resource] = {}
        self.applied: list[Resource] = []
        self.controller_pods = [CONTROLLER]
        self.reports: dict[str, bytes | BenchError] = {}
        self.run_pods: dict[str, list[Pod]] = {}
        """By sweep and labels, for example ``small/train/bf16-s0``."""
        self.texts: dict[str, str | BenchError] = {}
        """Logs by pod."""

    @property
    @override
    def namespace(self) -> str:
        return "lab"

    @override
    def check(self) -> None:
        pass

    @override
    def get(self, name: str) -> Resource | None:
        resource = self.stored.get(name)
        if resource is not None and self.statuses:
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            if isinstance(status, BenchError):
                raise status
            if status is None:
                return None
            resource["status"] = status
        return resource

    @override
    def apply(self, manifest: Resource) -> Resource:
        self.applied.append(manifest)
        return self.create(manifest)

    def create(self, manifest: Resource) -> Resource:
        """Store a resource as another client would."""
        metadata = manifest["metadata"] | {"uid": "u-1", "generation": 1}
        self.stored[metadata["name"]] = manifest | {"metadata": metadata}
        return dict(self.stored[metadata["name"]])

    @override
    def controllers(self) -> list[Pod]:
        return self.controller_pods

    @override
    def pods(self, sweep: str, **labels: str) -> list[Pod]:
        return self.run_pods.get("/".join([sweep, *labels.values()]), [])

    @override
    def log(self, pod: Pod, *, tail: int) -> str:
        text = self.texts[pod.name]
        if isinstance(text, BenchError):
            raise text
        return "".join(text.splitlines(keepends=True)[-tail:])

    @override
    def download(self, pod: Pod, path: str) -> bytes:
        del pod
        body = self.reports.get(path, PermanentError(f"GET {path}: 404"))
        if isinstance(body, BenchError):
            raise body
        return body


class Desk:
    """A folder with the file of a small sweep, and the command line on a cluster in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "sweep.yaml"
        self._output, self._messages = io.StringIO(), io.StringIO()

    @property
    def sweep(self) -> RecipeSweep:
        """The sweep of the file."""
        return load_sweep(self.file)

    @property
    def out(self) -> str:
        """Standard output."""
        return self._output.getvalue()

    @property
    def err(self) -> str:
        """Standard error."""
        return self._messages.getvalue()

    def target(self, cluster: ClusterApi, clock: Clock | None = None) -> ClusterTarget:
        """Return the cluster as a target of the command line."""
        output, messages = (Console(file=file, width=140) for file in (self._output, self._messages))
        options = ClusterOptions(report_to=self.folder / "report")
        return ClusterTarget(lambda: cluster, options, Consoles(output=output, messages=messages), clock or FakeClock())

    def run(self, cluster: ClusterApi, clock: Clock | None = None, *, as_json: bool = False) -> ExitCode:
        """Run the sweep of the file."""
        return self.target(cluster, clock).run(SweepArgument(self.file), as_json=as_json)


def cluster_with_sweep(*statuses: Status | BenchError | None) -> MemoryCluster:
    """Make a cluster that has the sweep of :func:`command_line.write_sweep` already."""
    cluster = MemoryCluster(*statuses)
    cluster.create(resource_of(parse_sweep(fitting_document()), cluster.namespace))
    return cluster


def tar(files: dict[str, bytes]) -> bytes:
    """Pack files as a controller packs a report."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return raw.getvalue()
