"""The end of vLLM's log, shortened until it fits an error message and still names the root cause.

A failed start leaves two tracebacks of a hundred lines, and the cause is in the first. So the frames are left out.
"""

import re
from pathlib import Path

from surogate_bench.processes.logs import redact

_LINES = 16
_LINE_CHARACTERS = 220
_READ_BYTES = 256 * 1024
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PROCESS = re.compile(r"^\([\w-]+ pid=\d+\) ")
_ORIGIN = re.compile(r"^[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[\w.]+:\d+\] ?")
_ERROR = re.compile(r"[\w.]*(Error|Exception|OfflineModeIsEnabled): .")
_FRAME = re.compile(r'  File "|    ')


def log_tail(log: Path) -> str:
    """Return the cause of a failure and the shortened end of a log file, secrets removed: ``: CAUSE. Its log ends: …``.

    The cause is the error that the log's first traceback ends with; it is left out where the log holds none.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _READ_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f". Its log {log} cannot be read: {error.strerror}"
    lines = _lines(text)
    cause = next((f": {line.rstrip('.')}" for line in lines if _ERROR.match(line)), "")
    return f"{cause}. Its log ends:\n" + "\n".join(lines[-_LINES:])


def _lines(text: str) -> list[str]:
    """Lines that are neither blank, nor frames of a traceback, nor repetitions."""
    kept: list[str] = []
    for raw in redact(text).splitlines():
        line = _ORIGIN.sub("", _PROCESS.sub("", _COLOUR.sub("", raw)))
        if not line.strip() or _FRAME.match(line) or line in kept[-1:]:
            continue
        kept.append(line if len(line) <= _LINE_CHARACTERS else f"{line[: _LINE_CHARACTERS - 1]}…")
    return kept
