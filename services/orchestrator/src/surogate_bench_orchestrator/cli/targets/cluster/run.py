"""Run a sweep on a cluster: submit it, follow it, and fetch its report."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from surogate_bench.errors import ExitCode, PermanentError
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.cli.signals import Interrupted, stop_on_signals
from surogate_bench_orchestrator.cli.targets.cluster.cluster_api import ClusterApi
from surogate_bench_orchestrator.cli.targets.cluster.follow import Follower
from surogate_bench_orchestrator.cli.targets.cluster.report import default_folder, fetch_report, show_report
from surogate_bench_orchestrator.cli.targets.cluster.submit import submit
from surogate_bench_orchestrator.cli.targets.cluster.sweep import ClusterSweep
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line
from surogate_bench_orchestrator.cli.terminal.live_table import choose_display, render_progress
from surogate_bench_orchestrator.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Output of a run: the format, and the folder of the report."""

    folder: Path | None = None
    """``results/<sweep>-<hash>/report`` if None."""
    as_json: bool = False


def run_on_cluster(
    api: ClusterApi, sweep: RecipeSweep, options: RunOptions, *, consoles: Consoles, clock: Clock
) -> ExitCode:
    """Submit a sweep, follow it, and fetch its report.

    Returns:
        OK if every run succeeded, FAILED if one did not, BAD_INPUT if the sweep is not admitted, INTERRUPTED if a
        signal requested a stop; the sweep then continues in the cluster.

    Raises:
        BenchError: the sweep cannot be submitted, or cannot be followed any longer.
    """
    try:
        with stop_on_signals() as stop:
            resource = submit(api, sweep)
            with choose_display(consoles.progress(as_json=options.as_json)) as display:
                follower = Follower(api, clock, stop.check, lambda found: display.show(found.progress))
                ended = follower.follow(resource)
            if not ended.finished:
                message = f"surogate-bench: sweep {sweep.name} is not admitted: {ended.refusal}"
                print_line(consoles.messages, message)
                return ExitCode.BAD_INPUT
            _show_result(follower, ended, api, options.folder or default_folder(sweep), consoles, options)
    except Interrupted:
        print_line(consoles.messages, _interrupted(sweep.name, api.namespace))
        return ExitCode.INTERRUPTED
    return ExitCode.OK if ended.succeeded else ExitCode.FAILED


def show_sweep(sweep: ClusterSweep, output: Console) -> None:
    """Show the status of a sweep."""
    output.print(render_progress(sweep.progress))
    if sweep.finished and sweep.message:
        print_line(output, sweep.message)


def _show_result(
    follower: Follower, sweep: ClusterSweep, api: ClusterApi, folder: Path, consoles: Consoles, options: RunOptions
) -> None:
    if options.as_json:
        follower.retry(lambda: fetch_report(api, sweep.name, folder))
        document = {"namespace": api.namespace, **sweep.as_json(), "report": str(folder / "report.html")}
        consoles.output.print_json(json.dumps(document))
        return
    try:
        follower.retry(lambda: show_report(api, sweep.name, folder, consoles.output))
    except PermanentError:  # without its report, the status of the runs is still worth showing
        show_sweep(sweep, consoles.output)
        raise


def _interrupted(sweep: str, namespace: str) -> str:
    return (
        f"surogate-bench: interrupted; sweep {sweep} continues in the cluster. The same command follows it again; to "
        f"stop it: kubectl delete recipesweep {sweep} --namespace {namespace}"
    )
