"""A model server as a process, for scripts that time what it serves."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from surogate_bench.contract import READY_PATH
from surogate_bench.stages.requests import ServeRequest

START_TIMEOUT_S = 900.0


@contextmanager
def model_server(request: ServeRequest, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the model-server service until the block ends; it is ready when the block begins.

    Args:
        request: What to serve, and on which ports.
        folder: For its request, its log and its work; created if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / "request.json", folder / "log"
    path.write_text(request.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "surogate_bench_model_server", str(path), "--work-dir", str(folder)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            _wait_until_ready(f"http://127.0.0.1:{request.port}{READY_PATH}", process, log)
            yield process
        finally:
            process.terminate()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False, timeout=60).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the model server is not ready:\n{log.read_text(encoding='utf-8')[-4000:]}")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
