"""Consoles of the command line."""

import sys
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.text import Text

_PIPE_WIDTH = 120
"""Columns of output that does not go to a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consoles:
    """Output streams."""

    output: Console
    """Standard output, for the result."""
    messages: Console
    """Standard error, for everything else."""

    def progress(self, *, as_json: bool) -> Console:
        """Return the console for progress; with ``--json`` only JSON goes to standard output."""
        return self.messages if as_json else self.output


def standard_consoles() -> Consoles:
    """Open consoles on the standard streams."""
    return Consoles(output=Console(width=_width(sys.stdout)), messages=Console(stderr=True, width=_width(sys.stderr)))


def print_line(console: Console, text: str) -> None:
    """Print text unchanged: without markup, highlighting or wrapping."""
    console.print(Text(text), soft_wrap=True)


def _width(stream: TextIO) -> int | None:
    return None if stream.isatty() else _PIPE_WIDTH
