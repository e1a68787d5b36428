"""The report of a sweep on this machine."""

from pathlib import Path

from surogate_bench.errors import PermanentError
from surogate_bench.user_paths import unwritable
from surogate_bench_orchestrator.cli.targets.local.sweep import LocalSweep
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line
from surogate_bench_orchestrator.report import Summary, build_report, render_terminal_table, write_report
from surogate_bench_orchestrator.sweep.snapshot import Snapshot


def make_report(local: LocalSweep, *, folder: Path | None, consoles: Consoles) -> None:
    """Write the report of the runs that have finished into the store, show it, and copy it into a folder.

    Raises:
        PermanentError: no run has finished.
        ConfigError: the store cannot be reached, or the folder cannot be written.
    """
    snapshot = local.snapshot()
    if not any(run.evaluate.name in snapshot.manifests for run in local.plan.runs):
        raise PermanentError(f"no run of sweep {local.sweep.name} has finished in {local.store.url}")
    show_report(local, publish_report(local, snapshot), consoles)
    if folder is not None:
        _copy_report(local, folder)
        print_line(consoles.output, f"Copied to {folder}")


def publish_report(local: LocalSweep, snapshot: Snapshot) -> Summary:
    """Write the report into the store; a report that is up to date is left as it is."""
    report = build_report(local.store, local.sweep, *snapshot.failures())
    write_report(local.store, report)
    return report.summary


def show_report(local: LocalSweep, summary: Summary, consoles: Consoles) -> None:
    """Print the table, the warnings and the location of the page."""
    consoles.output.print(render_terminal_table(summary))
    for warning in summary.warnings:
        print_line(consoles.output, f"Warning: {warning}")
    print_line(consoles.output, f"Report: {local.report_location()}")


def _copy_report(local: LocalSweep, folder: Path) -> None:
    try:
        local.store.fetch_tree(local.plan.layout.report, folder)
    except OSError as error:
        raise unwritable(folder, f"cannot be written: {error.strerror}", field="output") from error
