"""kubectl and helm as a user runs them, and waiting."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

PATIENCE_S = 240.0
"""Far more than most things here take on a busy machine."""


def until(true: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for something.

    Raises:
        AssertionError: it did not come.
    """
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what}"
        time.sleep(0.2)


@contextmanager
def port_forward(namespace: str, target: str, port: int) -> Iterator[int]:
    """Forward a free local port to a port of a service or pod; yields the local one."""
    command = [_tool("kubectl"), "-n", namespace, "port-forward", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, line
            yield int(found.group(1))
        finally:
            process.kill()


def kubectl(*arguments: str) -> str:
    """Run kubectl."""
    return subprocess.run(
        [_tool("kubectl"), *arguments], capture_output=True, text=True, timeout=180, check=True
    ).stdout


def helm(*arguments: str) -> str:
    """Run helm; its error is the test's."""
    done = subprocess.run([_tool("helm"), *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr or done.stdout}"
    return done.stdout


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not on PATH")
    return path
