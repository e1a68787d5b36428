import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ports import free_port
from waiting import PATIENCE_S, until

from surogate_bench.errors import ConfigError
from surogate_bench_model_server.vllm.command import Command
from surogate_bench_model_server.vllm.log_tail import log_tail
from surogate_bench_model_server.vllm.process import VllmProcess, bind_port, session_members, start_vllm

GRANDCHILD = "import time; print('up', flush=True); time.sleep(600)"
CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {GRANDCHILD!r}]).wait()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {CHILD}"
SUPERVISOR = """
import os, sys, time
from pathlib import Path
from surogate_bench_model_server.vllm.command import Command
from surogate_bench_model_server.vllm.process import start_vllm
command = Command(arguments=[sys.executable, "-c", sys.argv[2]], environment=dict(os.environ))
print(start_vllm(command, Path(sys.argv[1])).pid, flush=True)
time.sleep(600)
"""


def command(program: str) -> Command:
    return Command(arguments=[sys.executable, "-c", program], environment=dict(os.environ))


def wait_for_line(log: Path, line: str = "up") -> None:
    until(lambda: line in log.read_text().splitlines(), f"{line} in {log}")


def wait_for_end(process: VllmProcess) -> None:
    until(lambda: process.exit_code() is not None, "it ends")


def processes_of(session: int) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in session_members(session)]


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert alive == []


def test_stopping_ends_the_child_and_what_it_started(tmp_path: Path) -> None:
    process = start_vllm(command(CHILD), tmp_path)
    wait_for_line(process.log)
    processes = processes_of(process.pid)
    assert len(processes) == 3  # launcher, child, grandchild
    assert process.exit_code() is None
    asyncio.run(process.stop())
    assert [one for one in processes if one.is_running()] == []  # not even zombies
    assert process.exit_code() is not None


@pytest.mark.parametrize("victim", [0, 1], ids=["launcher", "child"])
def test_nothing_is_left_when_a_link_of_the_chain_is_killed(tmp_path: Path, victim: int) -> None:
    process = start_vllm(command(CHILD), tmp_path)
    wait_for_line(process.log)
    processes = processes_of(process.pid)
    processes[victim].kill()
    wait_for_end(process)
    process.kill()
    assert_gone(processes)
    assert process.exit_code() == 128 + signal.SIGKILL


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path), STUBBORN], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    session = int(supervisor.stdout.readline())
    wait_for_line(tmp_path / "vllm.log")
    processes = processes_of(session)
    assert len(processes) == 3
    supervisor.kill()
    supervisor.communicate()
    assert_gone(processes)


def test_the_exit_code_is_passed_on_and_the_log_of_the_attempt_before_is_kept(tmp_path: Path) -> None:
    for code in (3, 4):
        process = start_vllm(command(f"print('code {code}'); raise SystemExit({code})"), tmp_path)
        wait_for_end(process)
        assert process.exit_code() == code
    assert (tmp_path / "vllm.log").read_text() == "code 4\n"
    assert (tmp_path / "vllm.log.1").read_text() == "code 3\n"


def test_a_port_in_use_is_bad_input_that_names_it() -> None:
    port = free_port()
    refused = pytest.raises(ConfigError, match=rf"vllm_port: port {port} of 127\.0\.0\.1 is in use")
    with socket.create_server(("127.0.0.1", port)), refused:
        bind_port("127.0.0.1", port, name="vllm_port", wait_s=0.2)
    bind_port("127.0.0.1", port, name="vllm_port", wait_s=0.2).close()


def test_a_foreign_address_is_bad_input() -> None:
    with pytest.raises(ConfigError, match="is not an address of this machine"):
        bind_port("192.0.2.1", 8000, name="port", wait_s=0.2)


def test_the_end_of_a_log_keeps_causes_and_drops_frames(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text("""
(EngineCore pid=7) ERROR 11-24 10:52:25 [core.py:1420] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-24 10:52:25 [core.py:1420]   File "core.py", line 12, in run
(EngineCore pid=7) ERROR 11-24 10:52:25 [core.py:1420]     self.load()
(EngineCore pid=7) ERROR 11-24 10:52:25 [core.py:1420] OSError: \x1b[31mno such weights\x1b[0m
Traceback (most recent call last):
  File "entry.py", line 3, in <module>
    main()
    ^^^^^^
pydantic.ValidationError: 1 validation error for ModelConfig, api_key=hunter2
  Value error, there is no such architecture
  Value error, there is no such architecture
""")
    assert log_tail(log).splitlines()[1:] == [
        "Traceback (most recent call last):",
        "OSError: no such weights",
        "Traceback (most recent call last):",
        "pydantic.ValidationError: 1 validation error for ModelConfig, [redacted]",
        "  Value error, there is no such architecture",
    ]


def test_the_end_of_a_log_fits_into_a_message(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text("".join(f"{number} {'x' * 1000}\n" for number in range(1000)))
    tail = log_tail(log)
    assert len(tail) < 3800
    assert tail.splitlines()[-1].startswith("999 x")


def test_the_first_error_of_a_log_is_named_before_its_end(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(
        "(EngineCore pid=7) Traceback (most recent call last):\n"
        '(EngineCore pid=7)   File "engine.py", line 1, in run\n'
        "(EngineCore pid=7) huggingface_hub.errors.OfflineModeIsEnabled: HF_HUB_OFFLINE is set.\n"
        "(EngineCore pid=7) OSError: the model cannot be found.\n"
        "Traceback (most recent call last):\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert log_tail(log).startswith(
        ": huggingface_hub.errors.OfflineModeIsEnabled: HF_HUB_OFFLINE is set. Its log ends:\nTraceback"
    )


def test_a_missing_log_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "cannot be read" in log_tail(tmp_path / "vllm.log")
