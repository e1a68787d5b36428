"""Accuracies by way of serving, as data: what was trained under one recipe and served under another."""

from collections.abc import Iterator

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.model.scores import Comparison, Part, RowState, Score

MATRIX_TITLE = "Trained under \N{MULTIPLICATION SIGN} served under"
"""Heading of the tables and charts of the matrix."""


class Way(Part):
    """A way of serving the base: as published, or under a recipe (its stored weights and forward products)."""

    served_under: str | None
    """The recipe; None for the base as published, with bf16 weights and products."""
    title: str


PUBLISHED_TITLE = "bf16, as published"


def ways_of(sweep: RecipeSweep) -> tuple[Way, ...]:
    """Return the ways of serving that a sweep requests, that of the base as published first."""
    titles = {recipe.name: recipe.title for recipe in sweep.recipes}
    return tuple(
        Way(served_under=under, title=titles[under] if under else PUBLISHED_TITLE) for under in sweep.served_under
    )


class ServedCell(Part):
    """Accuracy of one row on one way of serving."""

    served_under: str | None
    state: RowState
    reason: str
    """Why the state is not ``succeeded``; empty otherwise."""
    seeds: tuple[int, ...]
    """Seeds behind ``score``; empty for the base model, a foreign adapter, and where there is none."""
    seeds_scored: int
    """How many they are; 1 for the base model and a foreign adapter."""
    score: Score | None
    many_empty: bool
    """Whether more answers are empty, with any seed, than ``evaluation.max_empty_fraction`` allows."""
    versus_published: Comparison | None
    """Difference to the same adapters on the base as published; None there."""
    versus_reference: Comparison | None
    """Difference to the reference recipe on this way of serving; None for the reference and the base model."""


class ServedRow(Part):
    """A row of the summary on every way of serving that was requested for it."""

    key: str
    title: str
    recipe: str | None
    """None for the base model and for a foreign adapter."""
    trained_under: str | None
    """The recipe, of a foreign adapter as the sweep states it; None where that is not known, and for the base model."""
    is_base: bool
    """Whether it is the base model's."""
    seed: int | None
    cells: tuple[ServedCell, ...]
    """Cells in the order of the ways; that of the base as published first."""

    def on(self, served_under: str | None) -> ServedCell | None:
        """Return the cell of a way of serving; None if it was not requested."""
        return next((cell for cell in self.cells if cell.served_under == served_under), None)

    @property
    def published(self) -> ServedCell:
        """The cell of the base as published."""
        return self.cells[0]

    @property
    def own(self) -> ServedCell | None:
        """The cell of the recipe that it was trained under; None without one, and if that quantizes nothing."""
        return None if self.trained_under is None else self.on(self.trained_under)


class LossSplit(Part):
    """A recipe's difference to the reference as published, split into that as trained and the rest.

    ``total = training + serving``, all over the same seeds and questions; negative where accuracy was lost.
    """

    recipe: str
    title: str
    seeds: tuple[int, ...]
    total: Comparison | None
    """This recipe as published, to the reference as published; None where the reference has no score."""
    training: Comparison | None
    """This recipe served as trained, to the reference as published: training (and serving) under the recipe."""
    serving: Comparison
    """This recipe as published, to itself served as trained: serving on another base than that of the training."""
    sentence: str
    """The split in a sentence."""


class Served(Part):
    """The matrix *trained under* times *served under*, and what follows from it."""

    ways: tuple[Way, ...]
    """The base as published first, then recipes in the sweep's order."""
    rows: tuple[ServedRow, ...]
    """The rows of the summary."""
    runs: tuple[ServedRow, ...]
    """The same for each run, where the sweep has several seeds; empty otherwise."""
    splits: tuple[LossSplit, ...]
    """Splits of the quantizing recipes that have been scored as published and as trained."""
    quantizing: str
    """What quantizing alone changed for the untouched model, in a sentence; empty where it was not scored so."""
    footnotes: tuple[str, ...]
    """What the marks in the tables of the matrix mean."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The splits, and what quantizing alone changed."""
        return (*(split.sentence for split in self.splits), *filter(None, (self.quantizing,)))

    @property
    def has_own(self) -> bool:
        """Whether any recipe was to be served as trained."""
        return any(row.own for row in self.rows)

    @property
    def is_crossed(self) -> bool:
        """Whether any adapter was to be served under another recipe than its own."""
        adapters = [row for row in self.rows if not row.is_base]
        return any(cell.served_under not in {None, row.trained_under} for row in adapters for cell in row.cells)

    def title_of(self, served_under: str | None) -> str:
        """Return the title of a way of serving."""
        return next(way.title for way in self.ways if way.served_under == served_under)

    def all_rows(self) -> Iterator[ServedRow]:
        """Yield rows over seeds, then rows per run."""
        yield from self.rows
        yield from self.runs
