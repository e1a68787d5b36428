"""Run a sweep on this machine."""

import json
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from surogate_bench.contract import LOG_FILE
from surogate_bench.errors import ConfigError, ExitCode, StoreAwayError
from surogate_bench.inputs.hub_environment import check_hub_environment
from surogate_bench.layout import manifest_key
from surogate_bench.results import PrepareResult
from surogate_bench.stages.local_inputs import require_unchanged
from surogate_bench.stages.publication import read_result
from surogate_bench.store.errors import as_bad_input
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.cli.signals import StopRequest, stop_on_signals
from surogate_bench_orchestrator.cli.targets.local.report import publish_report, show_report
from surogate_bench_orchestrator.cli.targets.local.status import status_as_json
from surogate_bench_orchestrator.cli.targets.local.sweep import LocalSweep, require_room, require_slots
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line
from surogate_bench_orchestrator.cli.terminal.live_table import choose_display
from surogate_bench_orchestrator.domain.observed import Failure, Observed, RunState, failure_of
from surogate_bench_orchestrator.report import Summary
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.completed_stages import CompletedStages
from surogate_bench_orchestrator.sweep.locks import SweepLock, hold, sweep_lock
from surogate_bench_orchestrator.sweep.rows import sweep_progress
from surogate_bench_orchestrator.sweep.runner import SweepRunner
from surogate_bench_orchestrator.sweep.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a sweep is run."""

    wait: bool = True
    """Wait for another process that holds the lock of the sweep."""
    as_json: bool = False


def run_sweep(local: LocalSweep, options: RunOptions, consoles: Consoles) -> ExitCode:
    """Run a sweep, or continue it, and show its report.

    Returns:
        OK if every run succeeded, FAILED if one did not, BAD_INPUT if model, data or task cannot be used.

    Raises:
        Interrupted: a signal requested a stop; the child processes are stopped.
        BenchError: the sweep cannot continue.
    """
    clock = SystemClock()
    lock = sweep_lock(local.store, local.plan.layout, clock)
    _require_store(local.store)
    notify = partial(print_line, consoles.messages)
    with stop_on_signals() as stop, hold(lock, clock, wait=options.wait, notify=notify, check=stop.check):
        snapshot = _finish(local, stop, lock, consoles.progress(as_json=options.as_json))
        if failure := _bad_input(snapshot):
            print_line(consoles.messages, f"Error: {failure.message}")
            return ExitCode.BAD_INPUT
        summary = publish_report(local, snapshot)
    _show_result(local, snapshot, summary, consoles, as_json=options.as_json)
    succeeded = all(status.state is RunState.SUCCEEDED for status in snapshot.states.values())
    return ExitCode.OK if succeeded else ExitCode.FAILED


def _finish(local: LocalSweep, stop: StopRequest, lock: SweepLock, progress: Console) -> Snapshot:
    """Run the remaining tasks, if any."""
    _require_unchanged_inputs(local)
    if snapshot := _finished_already(local):
        _write_spec(local)
        return snapshot
    if not local.store.exists(manifest_key(local.plan.layout.prepare)):
        check_hub_environment(local.sweep)
    require_slots(local)
    require_room(local)
    _write_spec(local)
    return _run(local, stop, lock, progress)


def _run(local: LocalSweep, stop: StopRequest, lock: SweepLock, progress: Console) -> Snapshot:
    with local.runtime() as runtime, choose_display(progress) as display:

        def heartbeat() -> None:
            stop.check()
            lock.renew()
            runtime.advance()

        def show(snapshot: Snapshot) -> None:
            display.show(sweep_progress(snapshot))

        if stopped := runtime.take_over():
            print_line(progress, f"stopped {stopped} processes that an earlier run had left running")
        return SweepRunner(local.plan, runtime, local.store, SystemClock(), heartbeat, show).run()


def _finished_already(local: LocalSweep) -> Snapshot | None:
    """Return the snapshot of a finished sweep, without starting anything; None if tasks remain."""
    facts = CompletedStages(local.store, local.plan)
    facts.read_all()
    snapshot = Snapshot(
        plan=local.plan, observed=Observed(done=facts.done, tasks={}, slots=0), manifests=facts.manifests
    )
    return snapshot if snapshot.is_finished else None


def _bad_input(snapshot: Snapshot) -> Failure | None:
    """Return why the sweep was refused before training; None if it was not."""
    failures = (failure_of(task, snapshot.observed) for task in snapshot.plan.preliminaries)
    return next((failure for failure in failures if failure and failure.reason == ConfigError.__name__), None)


def _require_unchanged_inputs(local: LocalSweep) -> None:
    """Refuse to continue a sweep, or to show its results, if data, model or task have changed since prepare."""
    prepared = read_result(local.store, local.plan.layout.prepare, PrepareResult)
    if prepared is not None:
        require_unchanged(prepared, local.sweep)


def _require_store(store: ObjectStore) -> None:
    """Verify the conditional writes of the store, which lock and manifests depend on, before either is written."""
    try:
        store.verify_conditional_writes()
    except StoreAwayError as error:
        raise as_bad_input(error, store.url) from error


def _write_spec(local: LocalSweep) -> None:
    """Write the spec, every time: its date shows ``gc`` when the sweep was last used."""
    local.store.put(local.plan.layout.spec, local.sweep.model_dump_json(indent=2).encode())


def _show_result(local: LocalSweep, snapshot: Snapshot, summary: Summary, consoles: Consoles, *, as_json: bool) -> None:
    if as_json:
        consoles.output.print_json(json.dumps(status_as_json(local, snapshot)))
        return
    show_report(local, summary, consoles)
    for task in local.plan.tasks:
        if failure_of(task, snapshot.observed):
            print_line(consoles.messages, f"Log of {task.name}: {local.state / task.name / LOG_FILE}")
