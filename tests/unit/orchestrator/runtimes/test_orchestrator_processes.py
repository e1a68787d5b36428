"""Processes and ports as the local runtime handles them."""

import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ports import free_neighbours
from waiting import PATIENCE_S, has_ended, until

from surogate_bench.contract import TASK_DIR_VARIABLE
from surogate_bench.errors import TransientError
from surogate_bench_orchestrator.runtimes.local import processes, tcp_ports
from surogate_bench_orchestrator.runtimes.local.processes import ProcessId


def test_a_pid_used_again_is_not_taken_for_the_process_it_was() -> None:
    mine = ProcessId.of(os.getpid())
    assert mine.find() == psutil.Process()
    assert replace(mine, created=mine.created - 100).find() is None


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    )
    log = tmp_path / "log"
    child = processes.start([sys.executable, "-u", "-c", program], environment=os.environ, log=log)
    until(log.read_text, "it ignores signals")
    processes.stop_children([child], grace_s=0.2)
    assert child.returncode == -signal.SIGKILL


def test_leftovers_are_asked_before_they_are_killed(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).touch(), sys.exit()))\n"
        "print(1, flush=True)\ntime.sleep(600)"
    )
    log, marker = tmp_path / "log", tmp_path / "marker"
    environment = {**os.environ, TASK_DIR_VARIABLE: str(tmp_path / "task")}
    child = processes.start([sys.executable, "-c", program, str(marker)], environment=environment, log=log)
    until(log.read_text, "it is ready")
    processes.stop_leftovers([ProcessId.of(child.pid)], marker=tmp_path / "task", grace_s=PATIENCE_S)
    child.wait(timeout=PATIENCE_S)
    assert marker.exists()


def test_what_has_ended_is_not_waited_for_although_nobody_collects_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, TASK_DIR_VARIABLE: str(tmp_path / "task")}
    program = "import time; time.sleep(600)"
    child = processes.start([sys.executable, "-c", program], environment=environment, log=tmp_path / "log")
    seen_dead = []

    def sleep(seconds: float) -> None:
        if psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE:
            seen_dead.append(child.pid)
        assert len(seen_dead) < 3, "it waits for a process that has ended"
        time.sleep(seconds)

    monkeypatch.setattr(processes, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    assert processes.stop_leftovers([ProcessId.of(child.pid)], marker=tmp_path / "task", grace_s=PATIENCE_S) == 1
    assert child.wait(PATIENCE_S) == -signal.SIGTERM


def test_free_ports_are_free_and_a_taken_one_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = free_neighbours(3)
    monkeypatch.setattr(tcp_ports, "_FIRST", ports.start)
    monkeypatch.setattr(tcp_ports, "_LAST", ports.stop)
    first, second = tcp_ports.free_ports("127.0.0.1", seed="x")
    with socket.create_server(("127.0.0.1", first)):
        (third,) = set(ports) - {first, second}
        assert tcp_ports.free_ports("127.0.0.1", seed="x") == (second, third)


def test_ports_of_a_server_that_does_not_listen_yet_are_passed_over() -> None:
    first, second = tcp_ports.free_ports("127.0.0.1", seed="x")
    assert not {first, second} & set(tcp_ports.free_ports("127.0.0.1", seed="x", taken={first, second}))


def test_no_free_ports_is_an_error_that_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: Any) -> bool:
        return False

    monkeypatch.setattr(tcp_ports, "_is_free", taken)
    with pytest.raises(TransientError, match="free ports"):
        tcp_ports.free_ports("127.0.0.1", seed="x")


def test_a_process_that_hides_its_mark_behind_a_title_is_found_by_its_session(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], env={})\n"
        "print(1, flush=True)\ntime.sleep(600)"
    )
    log = tmp_path / "log"
    environment = {**os.environ, TASK_DIR_VARIABLE: str(tmp_path / "task")}
    leader = processes.start([sys.executable, "-c", program], environment=environment, log=log)
    until(log.read_text, "it has started its child")
    (hidden,) = psutil.Process(leader.pid).children()
    assert processes.stop_leftovers([], marker=tmp_path / "task", grace_s=0) == 2
    leader.wait(timeout=PATIENCE_S)
    until(lambda: has_ended(hidden), "it ended")
