"""``surogate-bench … --on kubernetes``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.text import Text

from surogate_bench.errors import BenchError, ConfigError, ExitCode, PermanentError
from surogate_bench.specs import RecipeSweep, load_sweep, with_seeds
from surogate_bench_orchestrator.cli.cluster.follow import Follower, require_same, submit
from surogate_bench_orchestrator.cli.cluster.ports import ClusterApi, Pod, Resource
from surogate_bench_orchestrator.cli.cluster.reports import fetch_report
from surogate_bench_orchestrator.cli.cluster.standing import Standing, read_standing
from surogate_bench_orchestrator.cli.live import choose_display, render_view
from surogate_bench_orchestrator.cli.logs import SERVICE_STAGES, show_log, stages_of
from surogate_bench_orchestrator.cli.signals import Interrupted, stop_on_signals
from surogate_bench_orchestrator.ports import Clock
from surogate_bench_orchestrator.report import render_terminal_table
from surogate_bench_orchestrator.resource.model import parse_resource, resource_of

_YAML = {".yaml", ".yml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Consoles:
    """Where text goes."""

    output: Console
    """The result."""
    messages: Console
    """Everything else."""


def run_on_cluster(
    api: ClusterApi, sweep: RecipeSweep, *, folder: Path | None, as_json: bool, consoles: Consoles, clock: Clock
) -> int:
    """Submit a sweep, follow it, and fetch its report.

    Args:
        api: The cluster.
        sweep: What to run.
        folder: For the report; ``results/<sweep>-<hash>/report`` if None.
        as_json: Write JSON instead of the table.
        consoles: Where text goes.
        clock: For waiting.

    Returns:
        The exit code: 0 when every run succeeded, 1 when one did not, 2 when the sweep is not admitted, 130 when
        interrupted; the sweep then goes on in the cluster.

    Raises:
        BenchError: the sweep cannot be submitted, or cannot be followed any longer.
    """
    progress = consoles.messages if as_json else consoles.output
    try:
        with stop_on_signals() as stop:
            resource = submit(api, sweep)
            with choose_display(progress) as display:
                follower = Follower(api, clock, stop.check, lambda standing: display.show(standing.view))
                standing = follower.follow(resource)
            if not standing.finished:
                _tell(consoles.messages, f"surogate-bench: sweep {sweep.name} is not admitted: {standing.refusal}")
                return ExitCode.BAD_INPUT
            folder = folder or default_folder(sweep)
            _show_end(api, follower, standing, folder, as_json=as_json, consoles=consoles)
    except Interrupted:
        _tell(consoles.messages, _farewell(sweep.name, api.namespace))
        return ExitCode.INTERRUPTED
    return ExitCode.OK if standing.succeeded else ExitCode.FAILED


def show_status(
    api: ClusterApi, sweep: Path, *, as_json: bool, consoles: Consoles, seeds: Sequence[int] | None = None
) -> None:
    """Show how a sweep stands.

    Raises:
        ConfigError: there is none.
    """
    standing = read_standing(_find(api, sweep, seeds))
    if as_json:
        consoles.output.print_json(json.dumps({"namespace": api.namespace, **standing.as_json()}))
        return
    _show_standing(standing, consoles.output)


def get_report(
    api: ClusterApi, sweep: Path, *, folder: Path | None, consoles: Consoles, seeds: Sequence[int] | None = None
) -> None:
    """Fetch a sweep's report of what has finished so far, and show the table.

    Raises:
        ConfigError: there is no such sweep.
        BenchError: there is no report, or no controller to ask.
    """
    resource = _find(api, sweep, seeds)
    name = resource["metadata"]["name"]
    target = folder or default_folder(parse_resource(resource).sweep)
    _show_report(api, name, target, consoles.output)


def show_logs(  # noqa: PLR0913 - an option each
    api: ClusterApi,
    sweep: Path,
    run: str,
    *,
    stage: str | None,
    tail: int,
    consoles: Consoles,
    seeds: Sequence[int] | None = None,
) -> None:
    """Show what the pods of a run wrote, attempt by attempt.

    Args:
        api: The cluster.
        sweep: File or name of the sweep.
        run: A run, or ``prepare`` or ``model-server``.
        stage: ``train`` or ``eval``; both if None.
        tail: Lines of each pod.
        consoles: Where text goes.
        seeds: Take the place of the file's, where given.

    Raises:
        ConfigError: there is no such run.
        PermanentError: no pod of it is left.
    """
    wanted = parse_resource(_find(api, sweep, seeds)).sweep
    labels = {} if run in SERVICE_STAGES else {"run": run}
    pods = [pod for each in stages_of(wanted, run, stage) for pod in api.pods(wanted.name, stage=each, **labels)]
    if not pods:
        raise PermanentError(
            f"sweep {wanted.name} has no pod of {run} in namespace {api.namespace}: it has not started, or was cleaned "
            "up since it ended"
        )
    for pod in pods:
        show_log(f"{pod.name} ({pod.stage})", _log_of(api, pod, tail), consoles.output)


def render_resource(sweep: RecipeSweep, *, namespace: str | None, as_json: bool, output: Console) -> None:
    """Show the resource that would be applied.

    Raises:
        ConfigError: the sweep needs local folders.
    """
    manifest = resource_of(sweep, namespace)
    if as_json:
        output.print_json(json.dumps(manifest))
        return
    output.out(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120), highlight=False, end="")


def default_folder(sweep: RecipeSweep) -> Path:
    """Where a sweep's report goes unless the user says otherwise."""
    return Path("results") / f"{sweep.name}-{sweep.spec_hash}" / "report"


def _find(api: ClusterApi, sweep: Path, seeds: Sequence[int] | None) -> Resource:
    """Read the resource that a file, with these seeds instead of its own, describes, or that a name names."""
    described = with_seeds(load_sweep(sweep), seeds or ()) if sweep.suffix in _YAML or sweep.exists() else None
    if seeds and described is None:
        raise ConfigError(
            "has no effect on a sweep given by name", field="--seed", remedy="Give the sweep's file, or remove it."
        )
    name = described.name if described else str(sweep)
    api.check()
    resource = api.get(name)
    if resource is None:
        raise ConfigError(
            f"there is no such sweep in namespace {api.namespace}",
            field="sweep",
            value=name,
            remedy="Give a sweep file or the name of one that `kubectl get recipesweeps` lists; --namespace chooses.",
        )
    if described:
        require_same(resource, described)
    return resource


def _show_end(
    api: ClusterApi, follower: Follower, standing: Standing, folder: Path, *, as_json: bool, consoles: Consoles
) -> None:
    if as_json:
        follower.patiently(lambda: fetch_report(api, standing.name, folder))
        document = {"namespace": api.namespace, **standing.as_json(), "report": str(folder / "report.html")}
        consoles.output.print_json(json.dumps(document))
        return
    try:
        follower.patiently(lambda: _show_report(api, standing.name, folder, consoles.output))
    except PermanentError:  # what happened to the runs is worth more than the missing report
        _show_standing(standing, consoles.output)
        raise


def _show_standing(standing: Standing, output: Console) -> None:
    output.print(render_view(standing.view))
    if standing.finished and standing.remark:
        _tell(output, standing.remark)


def _show_report(api: ClusterApi, name: str, folder: Path, output: Console) -> None:
    summary = fetch_report(api, name, folder)
    output.print(render_terminal_table(summary))
    _tell(output, f"Report: {folder / 'report.html'}")


def _log_of(api: ClusterApi, pod: Pod, tail: int) -> str:
    try:
        return api.log(pod, tail=tail)
    except BenchError as error:
        return f"(no log: {error})"


def _farewell(sweep: str, namespace: str) -> str:
    where = f"--namespace {namespace}"
    return (
        f"surogate-bench: interrupted; sweep {sweep} goes on in the cluster. The same command follows it again; to end "
        f"it: kubectl delete recipesweep {sweep} {where}"
    )


def _tell(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
