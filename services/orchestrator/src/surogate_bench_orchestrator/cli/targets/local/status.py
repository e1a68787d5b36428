"""The status of a sweep on this machine."""

import json

from surogate_bench_orchestrator.cli.targets.local.sweep import LocalSweep
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line
from surogate_bench_orchestrator.cli.terminal.live_table import render_progress
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.locks import sweep_lock
from surogate_bench_orchestrator.sweep.rows import run_rows, service_rows, sweep_progress, warnings_of
from surogate_bench_orchestrator.sweep.snapshot import Snapshot


def show_status(local: LocalSweep, *, as_json: bool, consoles: Consoles) -> None:
    """Show the status of a sweep, and which process holds its lock."""
    snapshot = local.snapshot()
    holder = sweep_lock(local.store, local.plan.layout, SystemClock()).holder()
    if as_json:
        services = [row.as_json() for row in service_rows(snapshot)]
        held = {"services": services, "held_by": holder and str(holder)}
        consoles.output.print_json(json.dumps(status_as_json(local, snapshot) | held))
        return
    consoles.output.print(render_progress(sweep_progress(snapshot)))
    print_line(consoles.output, f"In use by {holder}" if holder else "Not in use by any process.")


def status_as_json(local: LocalSweep, snapshot: Snapshot) -> dict[str, object]:
    """Return the status of a sweep for programs."""
    return {
        "sweep": local.sweep.name,
        "spec_hash": local.sweep.spec_hash,
        "store": local.store.url,
        "finished": snapshot.is_finished,
        "runs": [row.as_json() for row in run_rows(snapshot)],
        "warnings": list(warnings_of(snapshot)),
        "report": local.report_location() if snapshot.is_finished else None,
    }
