"""A small process between the supervisor and vLLM, which ensures that vLLM never outlives the supervisor.

vLLM is several processes, and the engine lives on for a while when the API server is killed. So vLLM runs in a process
group of its own, with this process as its parent:

- the supervisor ends, for whatever reason: the kernel sends this process SIGTERM (``prctl(2)``, PR_SET_PDEATHSIG),
  and it kills the group;
- this process is stopped (SIGTERM): it stops vLLM, waits, and kills the group;
- the API server ends: the rest of the group is killed, and its exit code is passed on;
- in all of these it ends last: orphans among its descendants become its children (PR_SET_CHILD_SUBREAPER) and are
  reaped;
- the folder of vLLM's sockets is removed then;
- this process is killed: the kernel kills the API server, and the supervisor kills the session.

Usage: ``python -m surogate_bench_model_server.vllm.launch PARENT_PID GRACE_SECONDS SOCKET_FOLDER COMMAND...``
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STOP = {signal.SIGTERM, signal.SIGINT}
_AWAITED = _STOP | {signal.SIGCHLD}


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code (128 + signal where a signal ended it)."""
    parent, grace_s, folder, command = int(arguments[0]), float(arguments[1]), arguments[2], arguments[3:]
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        shutil.rmtree(folder, ignore_errors=True)
        return 1
    with subprocess.Popen(command, process_group=0, preexec_fn=_prepare_child) as child:  # noqa: PLW1509 - one thread
        try:
            code = _wait(child, parent, grace_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # none is left
                while True:
                    os.waitpid(-1, 0)
            shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _prepare_child() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)


def _wait(child: "subprocess.Popen[bytes]", parent: int, grace_s: float) -> int:
    """Wait for the child's end, or end it; signals are awaited, not handled, so that nothing is polled."""
    while True:
        number = signal.sigwait(_AWAITED)
        code = child.poll()
        if code is not None:
            return code
        if number in _STOP:
            break
    if os.getppid() != parent:
        return 1
    child.terminate()
    try:
        return child.wait(grace_s)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
