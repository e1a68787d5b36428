"""A gate at a step of a service's work: what reaches it waits until the test opens it, however fast it is."""

import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from surogate_bench.files import write_atomically

_HOOK = Path(__file__).parent / "at_gate"


class Gate:
    """Holds the services started with its :meth:`environment`; open until it is closed.

    Args:
        folder: For the gate's files; created.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def environment(self, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Add what a service needs to come to the gate; its children inherit it."""
        path = os.pathsep.join(filter(None, (str(_HOOK), environment.get("PYTHONPATH"))))
        return {**environment, "PYTHONPATH": path, "SUROGATE_BENCH_TEST_GATE": str(self._folder)}

    def close_training(self, step: int) -> None:
        """Let no trainer note another step once it has noted this one."""
        self._close("metrics.jsonl", step)

    def close_progress(self, step: int) -> None:
        """Let no service report progress again once it has reported this step, or a later one."""
        self._close("progress.json", step)

    def open(self) -> None:
        """Let everything go on."""
        (self._folder / "closed").unlink()

    def waiting(self) -> list[psutil.Process]:
        """Processes that wait at the gate."""
        ids = [int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()]
        return [process for pid in ids if (process := _running(pid))]

    def _close(self, file: str, step: int) -> None:
        write_atomically(self._folder / "closed", f"{file} {step}".encode())


def _running(pid: int) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
