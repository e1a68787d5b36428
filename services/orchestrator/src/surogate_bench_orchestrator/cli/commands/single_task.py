"""Run one task of a service to its end, outside of any sweep."""

from pathlib import Path

from rich.console import Console

from surogate_bench.errors import ConfigError
from surogate_bench_orchestrator.cli.signals import StopRequest, stop_on_signals
from surogate_bench_orchestrator.cli.terminal.consoles import print_line
from surogate_bench_orchestrator.domain.tasks import Observation, Task
from surogate_bench_orchestrator.runtimes.local.machine import allot, detect_machine
from surogate_bench_orchestrator.runtimes.local.runtime import LocalRuntime
from surogate_bench_orchestrator.sweep.clock import SystemClock

_POLL_S = 0.2


def run_task(task: Task, state: Path, messages: Console, *, if_active: ConfigError | None = None) -> Observation:
    """Run a task, and report its phases.

    Args:
        task: The task.
        state: Folder for its state, log and scratch files.
        messages: Console for the phases.
        if_active: Raised if another process runs the task; None where the folder is this process's own.

    Raises:
        ConfigError: another process does.
        Interrupted: a signal requested a stop; the process of the task is stopped.
    """
    clock = SystemClock()
    with stop_on_signals() as stop, LocalRuntime(state, allot(detect_machine(), trainers=1), clock) as runtime:
        if if_active is not None and runtime.observe([task.name])[task.name].phase.is_active:
            raise if_active
        runtime.delete(task.name)
        runtime.submit(task)
        return _follow(task, runtime, stop, messages)


def _follow(task: Task, runtime: LocalRuntime, stop: StopRequest, messages: Console) -> Observation:
    clock, shown = SystemClock(), ""
    while True:
        stop.check()
        runtime.advance()
        observation = runtime.observe([task.name])[task.name]
        phase = observation.progress.phase if observation.progress else ""
        if phase != shown:
            print_line(messages, f"{phase} …")
            shown = phase
        if not observation.phase.is_active:
            return observation
        clock.sleep(_POLL_S)
