"""This machine as a target."""

from pathlib import Path

from typing_extensions import override

from surogate_bench.errors import ExitCode
from surogate_bench_orchestrator.cli.targets.local.logs import show_logs
from surogate_bench_orchestrator.cli.targets.local.report import make_report
from surogate_bench_orchestrator.cli.targets.local.run import RunOptions, run_sweep
from surogate_bench_orchestrator.cli.targets.local.status import show_status
from surogate_bench_orchestrator.cli.targets.local.sweep import open_local_sweep
from surogate_bench_orchestrator.cli.targets.target import LocalOptions, SweepArgument, Target
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles
from surogate_bench_orchestrator.cli.terminal.rendering import print_document


class LocalTarget(Target):
    """Runs sweeps as child processes."""

    def __init__(self, options: LocalOptions, consoles: Consoles) -> None:
        self._options = options
        self._consoles = consoles

    @override
    def run(self, sweep: SweepArgument, *, as_json: bool) -> ExitCode:
        local = open_local_sweep(sweep, self._options, create=True)
        return run_sweep(local, RunOptions(wait=not self._options.no_wait, as_json=as_json), self._consoles)

    @override
    def status(self, sweep: SweepArgument, *, as_json: bool) -> None:
        local = open_local_sweep(sweep, self._options, create=False)
        show_status(local, as_json=as_json, consoles=self._consoles)

    @override
    def report(self, sweep: SweepArgument, *, folder: Path | None) -> None:
        local = open_local_sweep(sweep, self._options, create=False)
        make_report(local, folder=folder, consoles=self._consoles)

    @override
    def logs(self, sweep: SweepArgument, run: str, *, stage: str | None, tail: int) -> None:
        local = open_local_sweep(sweep, self._options, create=False)
        show_logs(local, run, stage=stage, tail=tail, consoles=self._consoles)

    @override
    def render(self, sweep: SweepArgument, *, as_json: bool) -> None:
        local = open_local_sweep(sweep, self._options, create=False)
        runtime = local.runtime()
        tasks = [dict(runtime.render(task)) for task in local.plan.tasks]
        if not as_json:  # every request holds the sweep, which YAML writes once if it is one object
            spec = tasks[0]["request"]["sweep"]
            tasks = [task | {"request": task["request"] | {"sweep": spec}} for task in tasks]
        print_document(tasks, self._consoles.output, as_json=as_json)
