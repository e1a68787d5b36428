"""The local runtime beyond the contract: environment, devices, ports, deadlines of servers, and leftovers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from stand_ins.clock import FakeClock
from sweeps import small_sweep
from waiting import PATIENCE_S, has_ended, until

from surogate_bench.contract import PARENT_PID_VARIABLE, Service
from surogate_bench.errors import ConfigError
from surogate_bench.stages.requests import TrainRequest
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task
from surogate_bench_orchestrator.runtimes.local.machine import Allotment
from surogate_bench_orchestrator.runtimes.local.processes import child_environment
from surogate_bench_orchestrator.runtimes.local.runtime import LocalRuntime, service_command

PLAN = plan(small_sweep(recipes=["bf16", "fp8"]), "file:///results")
CHILD = """
import json, os, pathlib, signal, subprocess, sys, time
request, work = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[3])
def write(name, **fields):
    part = work / (name + ".part")
    part.write_text(json.dumps(fields))
    part.replace(work / name)
"""


@dataclass
class Bench:
    """A local runtime whose service is the program a test writes."""

    folder: Path
    clock: FakeClock
    runtime: LocalRuntime

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def program(self, body: str) -> None:
        (self.folder / "child.py").write_text(CHILD + body)

    def until(self, task: Task, *phases: Phase) -> Observation:
        return wait_for(
            lambda: self.observe(task), lambda observed: observed.phase in phases, f"{task.name} is in {phases}"
        )

    def observe(self, task: Task) -> Observation:
        self.runtime.advance()
        return self.runtime.observe([task.name])[task.name]

    def work(self, task: Task) -> Path:
        return self.state / task.name / "work"

    def elsewhere(self, calls: str) -> str:
        """Use the same state folder from another process; returns what it prints."""
        program = (
            "import sys, pathlib\n"
            "from surogate_bench_orchestrator.runtimes.local.runtime import LocalRuntime\n"
            "from surogate_bench_orchestrator.runtimes.local.machine import Allotment\n"
            "from surogate_bench_orchestrator.sweep.clock import SystemClock\n"
            "runtime = LocalRuntime(pathlib.Path(sys.argv[1]), Allotment(2, 2, 1), SystemClock())\n"
            "def phases(*names): return [observed.phase.value for observed in runtime.observe(names).values()]\n"
        )
        command = [sys.executable, "-c", program + calls, str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout.strip()


ALLOTMENT = Allotment(slots=2, side_by_side=2, threads=3)
TRAIN, OTHER = PLAN.training_order


T = TypeVar("T")


def wait_for(read: Callable[[], T], good: Callable[[T], object], what: str) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while not good(found := read()):
        assert time.monotonic() < deadline, f"{what}: {found}"
        time.sleep(0.02)
    return found


def make_bench(folder: Path, allotment: Allotment = ALLOTMENT) -> Bench:
    clock = FakeClock()
    command = [sys.executable, str(folder / "child.py")]
    runtime = LocalRuntime(folder / "state", allotment, clock, command=lambda _: command)
    runtime.take_over()
    return Bench(folder, clock, runtime)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(tmp_path)
    with made.runtime:
        yield made


def test_a_service_is_started_as_a_module_of_this_installation() -> None:
    assert service_command(Service.MODEL_SERVER) == [sys.executable, "-P", "-m", "surogate_bench_model_server"]


def test_a_service_gets_credentials_and_paths_but_not_everything() -> None:
    given = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "HF_TOKEN": "y", "HISTFILE": "z", "OMP_NUM_THREADS": "8"}
    observed = child_environment(given, {"OMP_NUM_THREADS": "2"})
    assert observed == {
        "PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "HF_TOKEN": "y", "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def test_a_trainer_gets_its_share_of_threads_and_knows_its_parent(bench: Bench) -> None:
    bench.program('(work.parent / "variables.json").write_text(json.dumps(dict(os.environ)))')
    bench.runtime.submit(TRAIN)
    bench.until(TRAIN, Phase.SUCCEEDED)
    variables = json.loads((bench.state / TRAIN.name / "variables.json").read_text())
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables[PARENT_PID_VARIABLE] == str(os.getpid())
    assert (
        "CUDA_VISIBLE_DEVICES" not in variables
        or os.environ.get("CUDA_VISIBLE_DEVICES") == variables["CUDA_VISIBLE_DEVICES"]
    )
    request = TrainRequest.model_validate_json((bench.state / TRAIN.name / "request.json").read_bytes())
    assert (request.threads, request.side_by_side) == (3, 2)


def test_each_slot_has_a_gpu_of_its_own_and_tasks_without_a_slot_have_none(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, Allotment(slots=2, side_by_side=2, threads=1, devices=("4", "7")))
    bench.program('print("gpu=" + os.environ["CUDA_VISIBLE_DEVICES"], flush=True); time.sleep(600)')
    with bench.runtime:
        tasks = (TRAIN, OTHER, PLAN.prepare)
        for task in tasks:
            bench.runtime.submit(task)
        lines = [until(lambda task=task: bench.runtime.logs(task.name, tail=1), "a log") for task in tasks]
        assert lines == ["gpu=4", "gpu=7", "gpu="]


def test_scratch_files_go_when_a_task_succeeds_and_stay_when_it_fails(bench: Bench) -> None:
    bench.program('write("progress.json", phase="training", step=3); sys.exit(2 if request["recipe"] == "fp8" else 0)')
    bench.runtime.submit(TRAIN)
    bench.runtime.submit(OTHER)
    failed, fine = bench.until(TRAIN, Phase.FAILED), bench.until(OTHER, Phase.SUCCEEDED)
    assert (failed.progress, fine.progress) == (fine.progress, failed.progress)
    assert fine.progress is not None
    assert fine.progress.step == 3
    assert bench.work(TRAIN).exists()
    assert not bench.work(OTHER).exists()


def test_the_reason_is_the_services_word_or_the_signal_or_the_end_of_its_log(bench: Bench) -> None:
    once = replace(TRAIN, max_attempts=1)
    bench.program('write("termination.json", reason="OutOfMemory", message="too big"); sys.exit(1)')
    bench.runtime.submit(once)
    observed = bench.until(once, Phase.FAILED)
    assert (observed.reason, observed.message) == ("OutOfMemory", "too big")
    bench.runtime.delete(once.name)
    bench.program("os.kill(os.getpid(), signal.SIGKILL)")
    bench.runtime.submit(once)
    observed = bench.until(once, Phase.FAILED)
    assert observed.reason == "Killed"
    assert "SIGKILL" in observed.message
    assert "memory" in observed.message
    bench.runtime.delete(once.name)
    bench.program('sys.exit("no such module")')
    bench.runtime.submit(once)
    observed = bench.until(once, Phase.FAILED)
    assert observed.reason == "Exited"
    assert observed.message == "exit code 1; its log ends: no such module"


def test_what_would_fail_again_in_the_same_way_is_not_tried_again(bench: Bench) -> None:
    bench.program('write("termination.json", reason="PermanentError", message="no"); sys.exit(4)')
    bench.runtime.submit(TRAIN)
    assert bench.until(TRAIN, Phase.FAILED).attempt == 1


def test_the_next_attempt_waits_and_does_not_see_the_old_progress(bench: Bench) -> None:
    bench.program(
        '(work / "observed").open("a").write(str((work / "progress.json").exists()))\n'
        'write("progress.json", phase="x")\nsys.exit(75)'
    )
    bench.runtime.submit(TRAIN)
    observed = bench.until(TRAIN, Phase.PENDING)
    assert observed.attempt == 1
    bench.clock.time += 0.9
    assert bench.observe(TRAIN).phase is Phase.PENDING
    bench.clock.time += 0.2
    assert bench.observe(TRAIN).attempt == 2
    bench.until(TRAIN, Phase.PENDING)
    bench.clock.time += 60
    bench.until(TRAIN, Phase.FAILED)
    assert (bench.work(TRAIN) / "observed").read_text() == "False" * 3


def test_looking_at_a_task_starts_no_attempt(bench: Bench) -> None:
    bench.program("sys.exit(75)")
    bench.runtime.submit(TRAIN)
    bench.until(TRAIN, Phase.PENDING)
    bench.clock.time += 60
    assert bench.runtime.observe([TRAIN.name])[TRAIN.name].attempt == 1
    assert bench.observe(TRAIN).attempt == 2


def test_servers_of_one_name_in_several_state_folders_get_ports_of_their_own(tmp_path: Path) -> None:
    addresses = set()
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        bench = make_bench(tmp_path / name)
        bench.program("time.sleep(600)")  # it binds nothing: the other finds its ports free
        with bench.runtime:
            bench.runtime.submit(PLAN.server)
            addresses.add(bench.runtime.endpoint(PLAN.server.name))
    assert len(addresses) > 1  # all alike by chance once in a hundred million


def test_a_server_is_pending_until_it_says_that_it_is_ready(bench: Bench) -> None:
    bench.program('write("progress.json", phase="starting"); time.sleep(600)')
    bench.runtime.submit(PLAN.server)
    wait_for(lambda: bench.observe(PLAN.server), lambda observed: observed.progress, "it reports that it starts")
    assert bench.observe(PLAN.server).phase is Phase.PENDING
    (bench.work(PLAN.server) / "progress.json").write_text('{"phase": "ready"}')
    assert bench.observe(PLAN.server).phase is Phase.RUNNING


def test_a_server_that_is_never_ready_is_stopped(bench: Bench) -> None:
    bench.program("time.sleep(600)")
    bench.runtime.submit(PLAN.server)
    bench.clock.time += PLAN.server.timeout_s + 1
    observed = bench.observe(PLAN.server)
    assert (observed.phase, observed.reason) == (Phase.FAILED, "DeadlineExceeded")
    assert "was not ready" in observed.message


def test_a_ready_server_has_no_deadline_and_restarts_on_its_ports(bench: Bench) -> None:
    bench.program('write("progress.json", phase="ready"); time.sleep(600)')
    bench.runtime.submit(PLAN.server)
    address = bench.runtime.endpoint(PLAN.server.name)
    for attempt in range(1, PLAN.server.max_attempts + 3):  # more often than attempts in a row are allowed
        bench.until(PLAN.server, Phase.RUNNING)
        bench.clock.time += 10 * PLAN.server.timeout_s
        assert bench.observe(PLAN.server).attempt == attempt
        pid = json.loads((bench.state / PLAN.server.name / "state.json").read_text())["process"]["pid"]
        os.kill(pid, signal.SIGKILL)
        bench.until(PLAN.server, Phase.PENDING)
        bench.clock.time += 40
    assert bench.runtime.endpoint(PLAN.server.name) == address


def test_a_server_that_ends_by_itself_is_started_again(bench: Bench) -> None:
    bench.program('sys.exit(0) if not (work / "again").exists() and not (work / "again").touch() else time.sleep(600)')
    bench.runtime.submit(PLAN.server)
    wait_for(lambda: bench.observe(PLAN.server), lambda observed: observed.reason, "it ended")
    bench.clock.time += 5
    assert bench.observe(PLAN.server).attempt == 2


def test_deleting_a_task_ends_what_it_started_in_sessions_of_its_own(bench: Bench) -> None:
    bench.program(
        'deep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)\n'
        'write("pid.json", pid=deep.pid); time.sleep(600)'
    )
    bench.runtime.submit(TRAIN)
    pid_file = bench.work(TRAIN) / "pid.json"
    until(pid_file.exists, "the grandchild")
    grandchild = psutil.Process(json.loads(pid_file.read_text())["pid"])
    bench.runtime.delete(TRAIN.name)
    until(lambda: has_ended(grandchild), "it ended")


def test_what_is_left_of_a_crashed_tasks_process_group_is_killed(bench: Bench) -> None:
    bench.program(
        'child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={})\n'
        'write("pid.json", pid=child.pid); os._exit(7)'
    )
    once = replace(TRAIN, max_attempts=1)
    bench.runtime.submit(once)
    bench.until(once, Phase.FAILED)
    child = json.loads((bench.work(once) / "pid.json").read_text())["pid"]
    until(lambda: has_ended(child), "it ended")


def test_another_process_observes_what_runs_and_how_it_ended(bench: Bench) -> None:
    bench.program('sys.exit(2) if request["recipe"] == "fp8" else time.sleep(600)')
    bench.runtime.submit(TRAIN)
    bench.runtime.submit(OTHER)
    bench.until(TRAIN, Phase.FAILED)
    names = f"{TRAIN.name!r}, {OTHER.name!r}"
    assert bench.elsewhere(f"print(phases({names}))") == "['failed', 'running']"
    assert bench.elsewhere(f"runtime.delete({OTHER.name!r}); print(phases({names}))") == "['failed', 'absent']"


def test_a_name_that_runs_in_another_process_is_not_started_again(bench: Bench, tmp_path: Path) -> None:
    bench.program("time.sleep(600)")
    bench.runtime.submit(TRAIN)
    second = LocalRuntime(bench.state, ALLOTMENT, FakeClock(), command=lambda _: [str(tmp_path / "not there")])
    second.submit(TRAIN)
    assert second.observe([TRAIN.name])[TRAIN.name].attempt == 1


def test_a_task_whose_process_is_gone_with_its_owner_is_absent(bench: Bench) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(timeout=PATIENCE_S)
    gone = {"pid": dead.pid, "created": 1.0}
    folder = bench.state / TRAIN.name
    folder.mkdir()
    for fields in ({"phase": "running", "process": gone}, {"phase": "pending"}):
        (folder / "state.json").write_text(json.dumps({"submitted": 0, "owner": gone, **fields}))
        assert bench.observe(TRAIN).phase is Phase.ABSENT
    (folder / "state.json").write_text("cut off by a power lo")
    assert bench.observe(TRAIN).phase is Phase.ABSENT


def test_taking_over_stops_what_still_runs_and_forgets_failures(bench: Bench) -> None:
    bench.program('sys.exit(2) if request["recipe"] == "fp8" else time.sleep(600)')
    bench.runtime.submit(TRAIN)
    bench.runtime.submit(OTHER)
    bench.until(TRAIN, Phase.FAILED)
    take_over = f"print(runtime.take_over(), *phases({TRAIN.name!r}, {OTHER.name!r}))"
    assert bench.elsewhere(take_over) == "1 absent absent"
    assert bench.elsewhere(take_over) == "0 absent absent"


def test_a_folder_that_cannot_be_used_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(ConfigError, match="state-dir"):
        LocalRuntime(tmp_path / "state", ALLOTMENT, FakeClock()).take_over()
