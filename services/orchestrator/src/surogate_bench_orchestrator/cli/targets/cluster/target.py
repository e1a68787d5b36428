"""A namespace of a Kubernetes cluster as a target."""

import json
from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from surogate_bench.errors import BenchError, ConfigError, ExitCode, PermanentError
from surogate_bench.specs import RecipeSweep, load_sweep, with_seeds
from surogate_bench_orchestrator.cli.targets.cluster.cluster_api import ClusterApi, Pod, Resource
from surogate_bench_orchestrator.cli.targets.cluster.report import default_folder, show_report
from surogate_bench_orchestrator.cli.targets.cluster.run import RunOptions, run_on_cluster, show_sweep
from surogate_bench_orchestrator.cli.targets.cluster.submit import require_same
from surogate_bench_orchestrator.cli.targets.cluster.sweep import read_resource
from surogate_bench_orchestrator.cli.targets.logs import print_log, service_stages, stages_of
from surogate_bench_orchestrator.cli.targets.target import ClusterOptions, SweepArgument, Target
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles
from surogate_bench_orchestrator.cli.terminal.rendering import print_document
from surogate_bench_orchestrator.ports import Clock
from surogate_bench_orchestrator.resource.model import parse_resource, resource_of
from surogate_bench_orchestrator.sweep.clock import SystemClock

_YAML = {".yaml", ".yml"}


class ClusterTarget(Target):
    """Runs sweeps as RecipeSweep resources.

    Args:
        connect: Connects to the cluster, which :meth:`render` does not need.
        options: The user's choices.
        consoles: Output streams.
        clock: For waiting.
    """

    def __init__(
        self,
        connect: Callable[[], ClusterApi],
        options: ClusterOptions,
        consoles: Consoles,
        clock: Clock | None = None,
    ) -> None:
        self._connect = connect
        self._options = options
        self._consoles = consoles
        self._clock = clock or SystemClock()

    @override
    def run(self, sweep: SweepArgument, *, as_json: bool) -> ExitCode:
        spec = _load(sweep)
        options = RunOptions(folder=self._options.report_to, as_json=as_json)
        return run_on_cluster(self._connect(), spec, options, consoles=self._consoles, clock=self._clock)

    @override
    def status(self, sweep: SweepArgument, *, as_json: bool) -> None:
        api = self._connect()
        found = read_resource(_find(api, sweep))
        if as_json:
            document = {"namespace": api.namespace, **found.as_json()}
            self._consoles.output.print_json(json.dumps(document))
        else:
            show_sweep(found, self._consoles.output)

    @override
    def report(self, sweep: SweepArgument, *, folder: Path | None) -> None:
        api = self._connect()
        spec = parse_resource(_find(api, sweep)).sweep
        show_report(api, spec.name, folder or default_folder(spec), self._consoles.output)

    @override
    def logs(self, sweep: SweepArgument, run: str, *, stage: str | None, tail: int) -> None:
        api = self._connect()
        spec = parse_resource(_find(api, sweep)).sweep
        labels = {} if run in service_stages(spec) else {"run": run}
        pods = [pod for each in stages_of(spec, run, stage) for pod in api.pods(spec.name, stage=each, **labels)]
        if not pods:
            raise PermanentError(
                f"sweep {spec.name} has no pod of {run} in namespace {api.namespace}: it has not started, or was "
                "cleaned up since it ended"
            )
        for pod in pods:
            print_log(f"{pod.name} ({pod.stage})", _log_of(api, pod, tail), self._consoles.output)

    @override
    def render(self, sweep: SweepArgument, *, as_json: bool) -> None:
        manifest = resource_of(_load(sweep), self._options.namespace)
        print_document(manifest, self._consoles.output, as_json=as_json)


def _load(sweep: SweepArgument) -> RecipeSweep:
    return with_seeds(load_sweep(sweep.path, for_images=True), sweep.seeds)


def _find(api: ClusterApi, sweep: SweepArgument) -> Resource:
    """Read the resource that a file describes, or that has a name.

    Raises:
        ConfigError: there is none, or it is another experiment than the file describes.
    """
    spec = _load(sweep) if sweep.path.suffix in _YAML or sweep.path.exists() else None
    if sweep.seeds and spec is None:
        raise ConfigError(
            "has no effect on a sweep given by name", field="--seed", remedy="Give the sweep's file, or remove it."
        )
    name = spec.name if spec else str(sweep.path)
    api.check()
    resource = api.get(name)
    if resource is None:
        raise ConfigError(
            f"there is no such sweep in namespace {api.namespace}",
            field="sweep",
            value=name,
            remedy="Give a sweep file or the name of one that `kubectl get recipesweeps` lists; --namespace chooses.",
        )
    if spec:
        require_same(resource, spec)
    return resource


def _log_of(api: ClusterApi, pod: Pod, tail: int) -> str:
    try:
        return api.log(pod, tail=tail)
    except BenchError as error:
        return f"(no log: {error})"
