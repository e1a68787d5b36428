"""Adapters merged into their base, as data: against the same adapters unmerged, served the same way."""

from collections.abc import Iterator

from surogate_bench_orchestrator.report.model.scores import Comparison, Part
from surogate_bench_orchestrator.report.model.served import ServedCell, Way

MERGED_TITLE = "Merged before serving"
"""Heading of the table."""


class MergedCell(Part):
    """One row on one way of serving."""

    merged: ServedCell
    """Result of the merged adapter; compared with nothing but ``unmerged``."""
    unmerged: ServedCell
    """Result of the same adapter on the unmerged base, as in the matrix."""
    versus_unmerged: Comparison | None


class MergedRow(Part):
    """A recipe over its seeds, one run of it, or a foreign adapter, on every way of serving requested for it."""

    key: str
    title: str
    recipe: str | None
    """None for a foreign adapter."""
    trained_under: str | None
    """Recipe that the adapter was trained under, as in the matrix."""
    seed: int | None
    cells: tuple[MergedCell, ...]


class Merged(Part):
    """All merged adapters of a sweep, and what follows."""

    ways: tuple[Way, ...]
    rows: tuple[MergedRow, ...]
    runs: tuple[MergedRow, ...]
    """The same for each run, where the sweep has several seeds; empty otherwise."""
    sentence: str
    """What merging changed; empty before anything is compared."""
    footnotes: tuple[str, ...]

    def title_of(self, served_under: str | None) -> str:
        """Return the title of a way of serving."""
        return next(way.title for way in self.ways if way.served_under == served_under)

    def all_rows(self) -> Iterator[MergedRow]:
        """Yield rows over seeds, then rows per run."""
        yield from self.rows
        yield from self.runs
