"""How a service ends, what it shows meanwhile, and that it dies with its parent. Real processes."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import free_port
from sweeps import small_document
from waiting import PATIENCE_S, has_ended, until

from surogate_bench.contract import METRICS_PORT_VARIABLE, PARENT_PID_VARIABLE, TERMINATION_LOG_VARIABLE
from surogate_bench.errors import ExitCode
from surogate_bench.processes.logs import JsonFormatter, redact
from surogate_bench.processes.progress import Progress, Termination, read_progress, read_termination, write_progress
from surogate_bench.processes.service import is_deterministic

SERVICE = """
import sys, time
from pathlib import Path
from surogate_bench import errors
from surogate_bench.processes.service import run_service
def handle(request, work_dir):
    (work_dir / "started").touch()
    {body}
sys.exit(run_service("probe", handle, lambda request, work_dir: [lambda: f"probe {{request.kind}}\\n".encode()]))
"""
SWEEP = small_document(name="mini")


def start(folder: Path, body: str, **environment: str) -> subprocess.Popen[str]:
    request = folder / "request.json"
    request.write_text(json.dumps({"kind": "prepare", "sweep": SWEEP, "store": "file:///tmp/none"}), encoding="utf-8")
    arguments = [sys.executable, "-c", SERVICE.format(body=body), str(request), "--work-dir", str(folder / "work")]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=os.environ | environment)


def wait_for(path: Path) -> None:
    until(path.exists, f"{path} appears")


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        ("pass", ExitCode.OK, None),
        ("raise errors.ConfigError('no', field='a', remedy='b')", ExitCode.BAD_INPUT, "ConfigError"),
        ("raise errors.TransientError('later')", ExitCode.TRANSIENT, "TransientError"),
        ("raise errors.PermanentError('never')", ExitCode.PERMANENT, "PermanentError"),
        ("raise errors.UnsupportedRecipeError('not here')", ExitCode.UNSUPPORTED, "UnsupportedRecipeError"),
        ("raise MemoryError", ExitCode.FAILED, "OutOfMemory"),
        ("raise OSError(28, 'No space left on device')", ExitCode.FAILED, "OSError"),
        ("1 / 0", ExitCode.PERMANENT, "ZeroDivisionError"),
        ("import no_such_module", ExitCode.PERMANENT, "ModuleNotFoundError"),
        ("sys.no_such_attribute", ExitCode.PERMANENT, "AttributeError"),
        ("no_such_name", ExitCode.PERMANENT, "NameError"),
        ("len(5)", ExitCode.PERMANENT, "TypeError"),
        ("int('five')", ExitCode.PERMANENT, "ValueError"),
        ("{}['key']", ExitCode.PERMANENT, "KeyError"),
        ("raise RuntimeError('CUDA error: unspecified launch failure')", ExitCode.FAILED, "RuntimeError"),
        ("raise ConnectionResetError('by peer')", ExitCode.FAILED, "OSError"),
        ("import json; json.loads(b'{\"cut\": ')", ExitCode.FAILED, "JSONDecodeError"),
        ("b'cut \\xc3'.decode()", ExitCode.FAILED, "UnicodeDecodeError"),
    ],
)
def test_each_error_ends_with_its_code_and_leaves_word(
    tmp_path: Path, body: str, code: ExitCode, reason: str | None
) -> None:
    process = start(tmp_path, body)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    process_word = read_termination(tmp_path / "work")
    assert (process_word.reason if process_word else None) == reason
    for line in errors.splitlines():
        assert json.loads(line)["service"] == "probe"


@pytest.mark.parametrize(
    "missing", ["import no_such_module", "from surogate_bench.processes.service import no_such_name"]
)
def test_a_module_that_is_missing_when_a_service_starts_is_reported_once(tmp_path: Path, missing: str) -> None:
    (tmp_path / "broken.py").write_text(f"{missing}\n\ndef main(): ...\n")
    program = "import sys; from surogate_bench.processes.service import run_main; sys.exit(run_main('broken'))"
    ended = subprocess.run(
        [sys.executable, "-c", program, "request.json", "--work-dir", str(tmp_path / "work")],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == ExitCode.PERMANENT, ended.stderr
    word = read_termination(tmp_path / "work")
    assert word is not None
    assert word.reason in {"ModuleNotFoundError", "ImportError"}
    assert "no_such" in word.message


@pytest.mark.parametrize(
    "wrong",
    [
        lambda torch: torch.ones(2, 3) @ torch.ones(4, 5),
        lambda torch: torch.ones(2) + torch.ones(3),
        lambda torch: torch.cat([torch.ones(2, 3), torch.ones(2, 4)]),
        lambda torch: torch.cat([torch.ones(2, 3), torch.ones(2)]),
        lambda torch: torch.ones(6).view(4, 2),
        lambda torch: torch.ones(2, 2) @ torch.ones(2, 2).double(),
        lambda torch: torch.nn.Linear(2, 3).load_state_dict(torch.nn.Linear(3, 3).state_dict()),
    ],
)
def test_tensors_that_do_not_fit_will_not_fit_next_time(wrong: Callable[[Any], object]) -> None:
    import torch

    with pytest.raises(RuntimeError) as raised:
        wrong(torch)
    assert is_deterministic(raised.value)


def test_memory_and_devices_may_be_well_next_time() -> None:
    import torch

    assert not is_deterministic(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert not is_deterministic(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_deterministic(RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory"))


def following(cause: Exception) -> Exception:
    """An error as a library raises it that explains another one in its own way."""
    try:
        try:
            raise cause
        except type(cause):
            {}["no such model"]
    except KeyError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("cause", "deterministic"),
    [
        (OSError(5, "Input/output error"), False),
        (OSError(28, "No space left on device"), False),
        (OSError(12, "Cannot allocate memory"), False),
        (TimeoutError("timed out"), False),
        (httpx.ReadTimeout("timed out"), False),
        (httpx.RemoteProtocolError("peer closed connection without sending complete message body"), False),
        (MemoryError(), False),
        (FileNotFoundError(2, "No such file or directory"), True),
        (PermissionError(13, "Permission denied"), True),
        (OSError("it is not a model"), True),
        (ValueError("wrong"), True),
    ],
)
def test_an_error_that_followed_from_network_disk_or_memory_is_tried_again(
    cause: Exception, deterministic: bool
) -> None:
    assert is_deterministic(following(cause)) == deterministic


def test_sigterm_ends_as_transient_so_that_another_attempt_continues(tmp_path: Path) -> None:
    process = start(tmp_path, "time.sleep(600)")
    wait_for(tmp_path / "work" / "started")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.TRANSIENT


def test_the_reason_is_also_written_where_kubernetes_reads_it(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.write_text("left over" * 1000, encoding="utf-8")
    inode = log.stat().st_ino
    body = "raise errors.PermanentError('învățare ' + 'é\\n' * 5000 + '\\udcff')"
    process = start(tmp_path, body, **{TERMINATION_LOG_VARIABLE: str(log)})
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.PERMANENT
    data = log.read_bytes()
    assert 4000 < len(data) <= 4096
    word = Termination.model_validate_json(data)
    assert word.reason == "PermanentError"
    assert word.message.startswith("învățare é\né\n")
    assert word.message.endswith("…")
    assert log.stat().st_ino == inode, "a bind mount cannot be replaced"


def test_a_service_that_succeeds_leaves_no_reason(tmp_path: Path) -> None:
    process = start(tmp_path, "pass", **{TERMINATION_LOG_VARIABLE: str(tmp_path / "termination-log")})
    process.communicate(timeout=PATIENCE_S)
    assert not (tmp_path / "termination-log").exists()


def test_a_reason_that_cannot_be_written_changes_nothing_else(tmp_path: Path) -> None:
    process = start(tmp_path, "1 / 0", **{TERMINATION_LOG_VARIABLE: str(tmp_path)})
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.PERMANENT
    assert "the reason could not be written" in errors
    assert read_termination(tmp_path / "work") == Termination(reason="ZeroDivisionError", message="division by zero")


@pytest.mark.parametrize("message", ["short", "a" * 4000, "\x01" * 4000, "🙂" * 4000, '"' * 4000, "é" * 60])
@pytest.mark.parametrize("limit", [128, 4096])
def test_a_reason_is_shortened_to_what_fits(message: str, limit: int) -> None:
    whole = Termination(reason="PermanentError", message=message)
    data = whole.to_json(limit)
    assert len(data) <= limit
    word = Termination.model_validate_json(data)
    assert word == whole or (message.startswith(word.message.rstrip("…")) and len(data) > limit - 16)


def test_a_service_that_is_asked_to_shows_metrics_and_progress_while_it_works(tmp_path: Path) -> None:
    port = free_port()
    body = "(work_dir / 'progress.json').write_text('{\"phase\": \"probing\"}'); time.sleep(600)"
    process = start(tmp_path, body, **{METRICS_PORT_VARIABLE: str(port)})
    wait_for(tmp_path / "work" / "started")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S) as http:
        metrics = http.get("/metrics").text
        assert "probe prepare\n" in metrics
        assert "process_cpu_seconds_total" in metrics
        until(lambda: http.get("/progress").is_success, "there is progress")
        assert http.get("/progress").json()["phase"] == "probing"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.TRANSIENT


def test_without_being_asked_to_a_service_does_not_even_load_what_serves_metrics(tmp_path: Path) -> None:
    process = start(tmp_path, "assert not {'http.server', 'prometheus_client'} & set(sys.modules)")
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.OK, errors


def test_a_metrics_port_in_use_is_bad_input_before_the_work_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        process = start(tmp_path, "pass", **{METRICS_PORT_VARIABLE: str(taken.getsockname()[1])})
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.BAD_INPUT
    word = read_termination(tmp_path / "work")
    assert word is not None
    assert word.message.startswith("SUROGATE_BENCH_METRICS_PORT: metrics cannot be served on this port")
    assert not (tmp_path / "work" / "started").exists()


def test_a_service_dies_with_its_parent(tmp_path: Path) -> None:
    parent_code = (
        "import os, subprocess, sys\n"
        f"os.environ[{PARENT_PID_VARIABLE!r}] = str(os.getpid())\n"
        "sys.exit(subprocess.call(sys.argv[1:]))"
    )
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"kind": "prepare", "sweep": SWEEP, "store": "x"}), encoding="utf-8")
    body = "(work_dir / 'pid').write_text(str(__import__('os').getpid())); time.sleep(600)"
    child = [sys.executable, "-c", SERVICE.format(body=body), str(request), "--work-dir", str(tmp_path / "work")]
    parent = subprocess.Popen([sys.executable, "-c", parent_code, *child], stderr=subprocess.DEVNULL)
    file = tmp_path / "work" / "pid"
    until(lambda: file.exists() and file.read_text(encoding="utf-8"), "the child has written its id")
    pid = int(file.read_text(encoding="utf-8"))
    parent.kill()
    parent.wait(timeout=PATIENCE_S)
    until(lambda: has_ended(pid), "the child ends with its parent")


def test_a_request_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    process = start(tmp_path, "pass")
    process.communicate(timeout=PATIENCE_S)
    (tmp_path / "request.json").write_text("{}", encoding="utf-8")
    arguments = [sys.executable, "-c", SERVICE.format(body="pass"), str(tmp_path / "request.json"), "--work-dir", "w"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == ExitCode.BAD_INPUT
    assert "written by the orchestrator" in done.stderr


def test_progress_is_read_back_and_absence_is_none(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, Progress(phase="training", step=3, total=10, loss=1.5))
    assert read_progress(tmp_path) == Progress(phase="training", step=3, total=10, loss=1.5)


@pytest.mark.parametrize("secret", ["hf_abcdefghijkl", "password=hunter2", "AWS token: abc", "AKIAIOSFODNN7EXAMPLE"])
def test_secrets_do_not_reach_the_log(secret: str) -> None:
    assert secret.rsplit(maxsplit=1)[-1] not in redact(f"connecting with {secret} now")


def test_logs_are_json_without_credentials_in_the_message_or_in_a_field() -> None:
    record = logging.makeLogRecord({"msg": "token=abc", "store": "s3://b?secret=abc", "steps": 3})
    line = JsonFormatter("trainer").format(record)
    assert "abc" not in line
    assert json.loads(line)["steps"] == 3
