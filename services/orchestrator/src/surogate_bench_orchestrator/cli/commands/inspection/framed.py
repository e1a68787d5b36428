"""Text from models and data on the terminal: framed line by line, wrapped, and shortened in the middle."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.text import Text

from surogate_bench.errors import printable
from surogate_bench.stages.inspection import TextPart

_LONGEST_PART = 1200
"""Characters of a part; of a longer one beginning and end are shown."""
_COUNTED = "bold green"


@dataclass(frozen=True, slots=True)
class Marks:
    """Characters that mark texts."""

    opening: str
    closing: str
    frame: str
    bar: str

    @classmethod
    def of(cls, console: Console) -> Self:
        """Choose what the encoding of a console has."""
        return cls("[[", "]]", "| ", "#") if console.options.ascii_only else cls("⟦", "⟧", "│ ", "█")


def marked(parts: Iterable[TextPart], marks: Marks) -> Text:
    """Join parts: those that are included in the loss between marks, and coloured where there are colours."""
    text = Text()
    for part in parts:
        shown = _shortened(printable(part.text))
        text.append(f"{marks.opening}{shown}{marks.closing}" if part.counts else shown, _COUNTED if part.counts else "")
    return text


def print_framed(console: Console, text: Text, marks: Marks) -> None:
    """Print a text with a frame at its left, so that it is not mistaken for one of this program's."""
    for line in text.split("\n", allow_blank=True):
        for piece in line.wrap(console, console.width - len(marks.frame)) or [Text()]:
            console.print(Text.assemble((marks.frame, "dim"), piece), soft_wrap=True, highlight=False)


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_PART:
        return text
    half = _LONGEST_PART // 2
    return f"{text[:half]} … ({len(text) - 2 * half:,} characters left out) … {text[-half:]}"
