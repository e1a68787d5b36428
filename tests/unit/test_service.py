"""How a service ends: exit codes, the word it leaves, and dying with its parent. Real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surogate_bench.errors import ExitCode
from surogate_bench.logs import redact
from surogate_bench.progress import Progress, read_progress, read_termination, write_progress
from surogate_bench.service import PARENT_PID_VARIABLE

SERVICE = """
import sys, time
from pathlib import Path
from surogate_bench import errors
from surogate_bench.service import run_service
def handle(request, work_dir):
    (work_dir / "started").touch()
    {body}
sys.exit(run_service("probe", handle))
"""
SWEEP = {
    "name": "mini",
    "model": {"builtin": "tiny-qwen3-en"},
    "data": {"builtin": "word-problems-ro", "train_size": 8, "test_size": 4},
    "training": {"max_steps": 2},
    "recipes": ["bf16"],
}


def start(folder: Path, body: str, **environment: str) -> subprocess.Popen[str]:
    request = folder / "request.json"
    request.write_text(json.dumps({"kind": "prepare", "sweep": SWEEP, "store": "file:///tmp/none"}), encoding="utf-8")
    arguments = [sys.executable, "-c", SERVICE.format(body=body), str(request), "--work-dir", str(folder / "work")]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=os.environ | environment)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        ("pass", ExitCode.OK, None),
        ("raise errors.ConfigError('no', field='a', remedy='b')", ExitCode.BAD_INPUT, "ConfigError"),
        ("raise errors.TransientError('later')", ExitCode.TRANSIENT, "TransientError"),
        ("raise errors.PermanentError('never')", ExitCode.FAILED, "PermanentError"),
        ("raise errors.UnsupportedRecipeError('not here')", ExitCode.UNSUPPORTED, "UnsupportedRecipeError"),
        ("raise MemoryError", ExitCode.FAILED, "OutOfMemory"),
        ("raise OSError(28, 'No space left on device')", ExitCode.FAILED, "OSError"),
        ("1 / 0", ExitCode.FAILED, "ZeroDivisionError"),
    ],
)
def test_each_error_ends_with_its_code_and_leaves_word(
    tmp_path: Path, body: str, code: ExitCode, reason: str | None
) -> None:
    process = start(tmp_path, body)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    process_word = read_termination(tmp_path / "work")
    assert (process_word.reason if process_word else None) == reason
    for line in errors.splitlines():
        assert json.loads(line)["service"] == "probe"


def test_sigterm_ends_as_transient_so_that_another_attempt_continues(tmp_path: Path) -> None:
    process = start(tmp_path, "time.sleep(60)")
    wait_for(tmp_path / "work" / "started")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == ExitCode.TRANSIENT


def test_a_service_dies_with_its_parent(tmp_path: Path) -> None:
    parent_code = (
        "import os, subprocess, sys\n"
        f"os.environ[{PARENT_PID_VARIABLE!r}] = str(os.getpid())\n"
        "sys.exit(subprocess.call(sys.argv[1:]))"
    )
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"kind": "prepare", "sweep": SWEEP, "store": "x"}), encoding="utf-8")
    body = "(work_dir / 'pid').write_text(str(__import__('os').getpid())); time.sleep(60)"
    child = [sys.executable, "-c", SERVICE.format(body=body), str(request), "--work-dir", str(tmp_path / "work")]
    parent = subprocess.Popen([sys.executable, "-c", parent_code, *child], stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "work" / "pid")
    pid = int((tmp_path / "work" / "pid").read_text(encoding="utf-8"))
    parent.kill()
    parent.wait(timeout=10)
    deadline = time.monotonic() + 15
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2]:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def test_a_request_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    process = start(tmp_path, "pass")
    process.communicate(timeout=60)
    (tmp_path / "request.json").write_text("{}", encoding="utf-8")
    arguments = [sys.executable, "-c", SERVICE.format(body="pass"), str(tmp_path / "request.json"), "--work-dir", "w"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.BAD_INPUT
    assert "written by the orchestrator" in done.stderr


def test_progress_is_read_back_and_absence_is_none(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, Progress(phase="training", step=3, total=10, loss=1.5))
    assert read_progress(tmp_path) == Progress(phase="training", step=3, total=10, loss=1.5)


@pytest.mark.parametrize("secret", ["hf_abcdefghijkl", "password=hunter2", "AWS token: abc", "AKIAIOSFODNN7EXAMPLE"])
def test_secrets_do_not_reach_the_log(secret: str) -> None:
    assert secret.rsplit(maxsplit=1)[-1] not in redact(f"connecting with {secret} now")
