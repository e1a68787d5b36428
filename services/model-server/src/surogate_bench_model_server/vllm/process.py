"""One vLLM child process: start it, observe it, and end it with everything that it started."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from surogate_bench.contract import CPU_LORA_MARK_VARIABLE
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench_model_server.vllm.command import Command
from surogate_bench_model_server.vllm.runtime_folder import make_runtime_folder, runtime_environment

LOG_FILE = "vllm.log"
_GRACE_S = 10.0
_CPU_LORA_MARK = "cpu-lora"


@dataclass(slots=True)
class VllmProcess:
    """A running vLLM. ``pid`` is the launcher's; it leads the session that all of vLLM's processes belong to."""

    log: Path
    _child: "subprocess.Popen[bytes]" = field(repr=False)
    runtime: Path
    """Folder of its sockets, removed when it has ended."""

    @property
    def pid(self) -> int:
        """Process id of the launcher, which is the session id of everything vLLM started."""
        return self._child.pid

    def exit_code(self) -> int | None:
        """Exit code (128 + signal after a signal); None while it runs."""
        code = self._child.poll()
        return code if code is None or code >= 0 else 128 - code

    def uses_cpu_lora(self) -> bool:
        """Return whether vLLM has built its model with our LoRA implementation for CPUs."""
        return (self.runtime / _CPU_LORA_MARK).exists()

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL for what still runs after the grace period."""
        if self.exit_code() is None:
            self._child.terminate()
            deadline = time.monotonic() + _GRACE_S + 2
            while self.exit_code() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """Kill the whole session at once."""
        for pid in session_members(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._child.wait()
        shutil.rmtree(self.runtime, ignore_errors=True)  # the launcher has done so, unless it was killed


def start_vllm(command: Command, work_dir: Path) -> VllmProcess:
    """Start vLLM below a launcher that ends it when this process dies. Its output goes to ``work_dir/vllm.log``.

    The log of the attempt before is kept next to it, as ``vllm.log.1``.
    """
    log = work_dir / LOG_FILE
    if log.exists():
        log.replace(log.with_name(f"{LOG_FILE}.1"))
    runtime = make_runtime_folder()
    own = {CPU_LORA_MARK_VARIABLE: str(runtime / _CPU_LORA_MARK), **runtime_environment(runtime)}
    launcher = [sys.executable, "-P", "-m", "surogate_bench_model_server.vllm.launch"]
    launcher += [str(os.getpid()), str(_GRACE_S), str(runtime)]
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*launcher, *command.arguments],
            env=command.environment | own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return VllmProcess(log, child, runtime)


def session_members(session: int) -> list[int]:
    """List the processes of a session; a process that leaves or ends meanwhile is left out."""
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == session:
                members.append(pid)
    return members


def bind_port(host: str, port: int, *, name: str, wait_s: float) -> socket.socket:
    """Bind a listening address, waiting for a process that is releasing it.

    Raises:
        ConfigError: the port is in use, or the host is not one of this machine's addresses.
        PermanentError: the operating system refuses for another reason.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return _bind(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise _bind_error(error, host, port, name) from error


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen()  # two sockets with SO_REUSEADDR may bind one port; only one may listen
    except BaseException:
        bound.close()
        raise
    return bound


def _bind_error(error: OSError, host: str, port: int, name: str) -> ConfigError | PermanentError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {port} of {host} is in use",
            field=name,
            value=port,
            remedy="Stop the process that listens there, or choose another port.",
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return ConfigError(
            "is not an address of this machine", field="host", value=host, remedy="Use 127.0.0.1 or 0.0.0.0."
        )
    return PermanentError(f"{host}:{port} cannot be listened on: {error.strerror}")
