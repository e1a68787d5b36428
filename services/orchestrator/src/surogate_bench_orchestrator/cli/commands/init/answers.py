"""The answers about a sweep, and the known facts about its model and data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from surogate_bench.specs.data import DataFormat

DEFAULT_FILE = Path("sweep.yaml")
STANDARD_OUTPUT = Path("-")

SourceKind = Literal["hub", "path", "builtin"]


@dataclass(frozen=True, slots=True)
class Source:
    """A model or data set, as a section of the sweep names it."""

    kind: SourceKind
    text: str
    """Name, or path relative to the folder of the sweep file."""


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """A task, and the data that it scores if that is neither its own nor that of the sweep."""

    name: str
    data: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Answers so far; everything that is not answered gets a default."""

    model: Source
    data: Source
    tasks: tuple[TaskAnswer, ...] = ()
    """The first one is primary; the default if empty."""
    settings: Mapping[str, object]
    """Other settings by path, such as ``training.lora.r``. A number that could not be read as one is still text, which
    the spec refuses by its own message."""

    def having(self, path: str, value: object) -> Self:
        """Return the answers with one setting replaced."""
        return replace(self, settings={**self.settings, path: value})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What the files of a local data set contain."""

    splits: frozenset[str]
    """Splits that there are files for."""
    records: int
    """Number of training records."""
    shape: DataFormat | None
    """Shape of the training records; None if their fields fit none."""
    fields: tuple[str, ...]
    """Names of the first training record's fields."""
    renamed: Mapping[str, str]
    """Fields that are recognized although they are spelled in other capitals, by role."""
    has_answers: bool
    """Whether every record that a task would score ends with ``#### N``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known in addition to the answers."""

    positions: int | None = None
    """Positions that the model takes; None if that is not known."""
    data: DataFacts | None = None
    """None if the data is not local, or cannot be read here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """Options of the command."""

    file: Path
    """The file to write; ``-`` for standard output."""
    model: str | None
    data: str | None
    tasks: tuple[str, ...]
    settings: Mapping[str, object]
    """Other settings by path."""
    yes: bool
    """Ask nothing."""
    force: bool
    """Replace a file that is there."""
