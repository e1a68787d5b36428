"""Waiting for a cause: a process, a file, an answer. The deadline only ends a test that would wait forever."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")

PATIENCE_S = 1200.0
"""Far more than anything here takes on a busy machine: no test may depend on it."""

_POLL_S = 0.02


def until(look: Callable[[], T], what: str, *, patience_s: float = PATIENCE_S) -> T:
    """Call ``look`` until it returns something true, and return that.

    Raises:
        AssertionError: nothing true came within ``patience_s`` seconds.
    """
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what}"
        time.sleep(_POLL_S)
    return found


def has_ended(process: psutil.Process | int) -> bool:
    """Whether a process, or that of an id, has ended: a zombie has, whether or not its parent ever waits for it."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return not found.is_running() or found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # since it was found
        return True
