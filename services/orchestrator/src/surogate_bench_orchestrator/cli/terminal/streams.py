"""Handling of standard streams that are closed, full, without a reader, or in an encoding that lacks characters."""

import io
import os
import sys
from typing import Any

from surogate_bench.errors import BenchError, ConfigError

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class OutputError(BenchError):
    """Standard output cannot be written."""


class _Output(io.TextIOWrapper):
    """Standard output that raises an error of its own when it cannot be written; an OSError could be of any file."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._lost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> OutputError:
        """Discard what could not be written, so that closing does not fail again."""
        _redirect_to_null(self.fileno(), "w")
        is_pipe = isinstance(error, BrokenPipeError)
        return OutputError(f"standard output: {'its reader has ended' if is_pipe else error.strerror}")


def prepare_streams() -> None:
    """Make the standard streams safe to use.

    Raises:
        ConfigError: standard output is closed.
    """
    closed = [name for number, (name, mode) in enumerate(_STREAMS) if _fill(number, name, mode)]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "stdout" in closed:
        raise ConfigError(
            "is closed, and results are written there",
            field="standard output",
            remedy="Redirect it to a file, or to /dev/null.",
        )
    if type(sys.stdout) is io.TextIOWrapper:
        buffering = sys.stdout.line_buffering
        encoding = sys.stdout.encoding
        sys.stdout = _Output(
            sys.stdout.detach(), encoding=encoding, errors="backslashreplace", line_buffering=buffering
        )


def _fill(number: int, name: str, mode: str) -> bool:
    """Open a closed stream on the null device, so that no other file gets its number; return whether it was closed."""
    try:
        os.fstat(number)
    except OSError:
        _redirect_to_null(number, mode)
    else:
        return False
    if getattr(sys, name) is None:
        stream: Any = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - stays open
        setattr(sys, name, stream)
    return True


def _redirect_to_null(number: int, mode: str) -> None:
    null = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
    if null != number:
        os.dup2(null, number)
        os.close(null)
