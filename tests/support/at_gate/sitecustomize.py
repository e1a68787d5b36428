"""Holds a service at a step of its work: Python imports this module at its start where it is on ``PYTHONPATH``.

Python calls audit hooks before it opens or renames a file. A trainer opens ``metrics.jsonl`` for each line it adds, and
every service renames its new ``progress.json`` over the old one. ``gates.py`` closes and opens the gate.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_METRICS, _PROGRESS = "metrics.jsonl", "progress.json"
_POLL_S = 0.02


def _hold_at(gate: Path) -> None:
    """Wait wherever the gate's ``closed`` file says so; a file named by the process id shows that it waits."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[1] == "a" and str(arguments[0]).endswith(_METRICS):
            _wait(gate, Path(arguments[0]))
        elif event == "os.rename" and str(arguments[1]).endswith(_PROGRESS):
            _wait(gate, Path(arguments[1]))

    sys.addaudithook(hook)


def _wait(gate: Path, file: Path) -> None:
    waits = gate / str(os.getpid())
    while _is_closed(gate, file):
        if not waits.exists():
            waits.write_text(str(file))
        time.sleep(_POLL_S)
    waits.unlink(missing_ok=True)


def _is_closed(gate: Path, file: Path) -> bool:
    try:
        name, step = (gate / "closed").read_text().split()
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return file.name == name and bool(lines) and json.loads(lines[-1]).get("step", 0) >= int(step)


if "SUROGATE_BENCH_TEST_GATE" in os.environ:
    _hold_at(Path(os.environ["SUROGATE_BENCH_TEST_GATE"]))
