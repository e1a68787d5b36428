"""``surogate-bench run``: bring a sweep to its end on this machine and report on it."""

import json
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from surogate_bench.errors import ExitCode, StoreAwayError
from surogate_bench.hub_environment import check_hub_environment
from surogate_bench.layout import manifest_key
from surogate_bench.local_inputs import require_unchanged
from surogate_bench.results import PrepareResult
from surogate_bench.stages import read_result
from surogate_bench.store import ObjectStore
from surogate_bench.store_errors import as_bad_input
from surogate_bench_orchestrator.cli.live import choose_display
from surogate_bench_orchestrator.cli.session import Session, require_free_space
from surogate_bench_orchestrator.cli.signals import StopRequest, stop_on_signals
from surogate_bench_orchestrator.domain.observed import Failure, Observed, RunState, failure_of
from surogate_bench_orchestrator.report import Summary, build_report, render_terminal_table, write_report
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.completed_stages import CompletedStages
from surogate_bench_orchestrator.sweep.locks import SweepLock, hold, sweep_lock
from surogate_bench_orchestrator.sweep.rows import run_rows, sweep_view, warnings_of
from surogate_bench_orchestrator.sweep.runner import Snapshot, SweepRunner


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user chose."""

    wait: bool = True
    """Wait for another process that works on the sweep."""
    as_json: bool = False
    slots: int | None = None


def run_sweep(session: Session, options: RunOptions, *, output: Console, messages: Console) -> int:
    """Run, or go on with, a sweep.

    Args:
        session: Which sweep.
        options: How.
        output: For the result.
        messages: For everything else.

    Returns:
        The exit code: 0 when every run succeeded, 1 when one did not, 2 when model, data or task cannot be used.

    Raises:
        Interrupted: a signal asked to stop; children are stopped.
        BenchError: the sweep cannot go on.
    """
    progress = messages if options.as_json else output
    clock = SystemClock()
    lock = sweep_lock(session.store, session.plan.layout, clock)

    def tell(message: str) -> None:
        messages.print(Text(message), soft_wrap=True)

    _require_store(session.store)
    with stop_on_signals() as stop, hold(lock, clock, wait=options.wait, tell=tell, check=stop.check):
        _require_unchanged_inputs(session)
        snapshot = _finished_already(session)
        if snapshot is None:
            snapshot = _run(session, options, stop, lock, progress)
        else:
            _write_spec(session)
        if failure := _bad_input(snapshot):
            messages.print(Text(f"Error: {failure.message}"), soft_wrap=True)
            return ExitCode.BAD_INPUT
        summary = publish_report(session, snapshot)
    if options.as_json:
        output.print_json(json.dumps(as_json(session, snapshot)))
    else:
        show_report(session, summary, output)
        _point_at_logs(session, snapshot, messages)
    succeeded = all(status.state is RunState.SUCCEEDED for status in snapshot.states.values())
    return ExitCode.OK if succeeded else ExitCode.FAILED


def _bad_input(snapshot: Snapshot) -> Failure | None:
    """What was found wrong with the sweep before anything was trained."""
    failures = (failure_of(task, snapshot.observed) for task in snapshot.plan.preliminaries)
    return next((failure for failure in failures if failure and failure.reason == "ConfigError"), None)


def publish_report(session: Session, snapshot: Snapshot) -> Summary:
    """Write the report into the store, unless it is there already as it should be."""
    report = build_report(session.store, session.sweep, *snapshot.troubles())
    write_report(session.store, report)
    return report.summary


def show_report(session: Session, summary: Summary, output: Console) -> None:
    """Print the table, what to know before trusting it, and where the page is."""
    output.print(render_terminal_table(summary))
    for warning in summary.warnings:
        output.print(Text(f"Warning: {warning}"), soft_wrap=True)
    output.print(Text(f"Report: {session.report_location()}"), soft_wrap=True)


def as_json(session: Session, snapshot: Snapshot) -> dict[str, object]:
    """Say how a sweep stands, for programs."""
    return {
        "sweep": session.sweep.name,
        "spec_hash": session.sweep.spec_hash,
        "store": session.store.url,
        "finished": snapshot.is_finished,
        "runs": [row.as_json() for row in run_rows(snapshot)],
        "warnings": list(warnings_of(snapshot)),
        "report": session.report_location() if snapshot.is_finished else None,
    }


def _finished_already(session: Session) -> Snapshot | None:
    """Recognize a sweep of which nothing is left to do, without starting anything."""
    facts = CompletedStages(session.store, session.plan)
    facts.read_all()
    snapshot = Snapshot(
        plan=session.plan, observed=Observed(done=facts.done, tasks={}, slots=0), manifests=facts.manifests
    )
    return snapshot if snapshot.is_finished else None


def _require_unchanged_inputs(session: Session) -> None:
    """Refuse to go on with a sweep, or to show its results, once its data, model or task is not what was prepared."""
    prepared = read_result(session.store, session.plan.layout.prepare, PrepareResult)
    if prepared is not None:
        require_unchanged(prepared, session.sweep)


def _require_store(store: ObjectStore) -> None:
    """Check that the store can do what the lock and the manifests rest on, before either is written."""
    try:
        store.verify_conditional_writes()
    except StoreAwayError as error:
        raise as_bad_input(error, store.url) from error


def _write_spec(session: Session) -> None:
    """Write the spec, anew each time: when it was written says when the sweep was last used, which ``gc`` goes by."""
    session.store.put(session.plan.layout.spec, session.sweep.model_dump_json(indent=2).encode())


def _run(session: Session, options: RunOptions, stop: StopRequest, lock: SweepLock, progress: Console) -> Snapshot:
    if not session.store.exists(manifest_key(session.plan.layout.prepare)):
        check_hub_environment(session.sweep)
    require_free_space(session)
    _write_spec(session)

    def heartbeat() -> None:
        stop.check()
        lock.renew()

    with session.local_runtime(options.slots) as runtime, choose_display(progress) as display:

        def show(snapshot: Snapshot) -> None:
            display.show(sweep_view(snapshot))

        if left := runtime.take_over():
            progress.print(Text(f"stopped {left} processes that an earlier run had left behind"))
        return SweepRunner(session.plan, runtime, session.store, SystemClock(), heartbeat, show).run()


def _point_at_logs(session: Session, snapshot: Snapshot, messages: Console) -> None:
    for task in session.plan.tasks:
        if failure_of(task, snapshot.observed):
            messages.print(Text(f"Log of {task.name}: {session.state / task.name / 'log.txt'}"), soft_wrap=True)
