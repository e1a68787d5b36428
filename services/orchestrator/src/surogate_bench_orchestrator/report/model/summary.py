"""The content of a report as data: the one source of every table, chart caption and page."""

from collections.abc import Iterator
from datetime import datetime

from pydantic import Field

from surogate_bench.machine.hardware import Hardware
from surogate_bench_orchestrator.report.model.further import FurtherTask
from surogate_bench_orchestrator.report.model.merged import Merged
from surogate_bench_orchestrator.report.model.rows import Foreign, Row, ScoredOn, Training
from surogate_bench_orchestrator.report.model.scores import FLEXIBLE, STRICT, Comparison, Part, RowState, Score
from surogate_bench_orchestrator.report.model.served import Served

__all__ = [
    "Comparison",
    "DataDigest",
    "Foreign",
    "Machine",
    "RecipeText",
    "Row",
    "RowState",
    "Score",
    "ScoredOn",
    "Summary",
    "Training",
]


class RecipeText(Part):
    """Description of one recipe."""

    name: str
    title: str
    storage: str
    compute: str
    details: str


class DataDigest(Part):
    """One data split as it was used."""

    split: str
    records: int
    sha256: str


class Machine(Part):
    """One kind of machine, and the stages that ran on it."""

    description: str
    details: Hardware
    runs: tuple[str, ...]


class Summary(Part):
    """A whole report. Fractions, seconds and bytes; a row that failed is there with its reason."""

    name: str
    spec_hash: str
    description: str
    date: datetime | None
    """When the newest stage finished; None before the first."""
    headline: str
    """The result in a few sentences."""
    model: str
    model_source: str
    data: str
    splits: tuple[DataDigest, ...]
    task: str
    metric: str = Field(STRICT, exclude_if=lambda value: value == STRICT)
    """What ``accuracy`` of scores is."""
    second_metric: str | None = Field(
        default_factory=lambda known: FLEXIBLE if known["metric"] == STRICT else None,
        exclude_if=lambda value: value == FLEXIBLE,
    )
    """What ``flexible_accuracy`` of scores is; None where the task has one metric."""
    task_data: str
    """Where the task's questions come from."""
    scored: tuple[ScoredOn, ...] = ()
    """All that was scored; more than one where rows cannot be compared."""
    special_tokens: str = ""
    """Which special tokens were added to prompts in training and in scoring, as text; empty where not known."""
    evaluated_on: str
    """Task, source and number of its questions, in one line; shown with every table."""
    machines: tuple[Machine, ...]
    versions: dict[str, str]
    reference: str | None
    """Key of the row that others are compared with: the recipe without quantization."""
    reference_title: str | None
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    """The base model where it is scored, then recipes, foreign trainers and foreign adapters in the sweep's order."""
    runs: tuple[Row, ...]
    """The same for each run, where the sweep has several seeds; empty otherwise."""
    recipes: tuple[RecipeText, ...]
    footnotes: tuple[str, ...]
    """What the marks in the main table mean."""
    detail_footnotes: tuple[str, ...] = Field((), exclude_if=lambda value: not value)
    """The same for the table of further figures."""
    run_footnotes: tuple[str, ...] = Field((), exclude_if=lambda value: not value)
    """The same for the tables of single runs."""
    notes: tuple[str, ...]
    """What a reader must know to interpret the figures."""
    warnings: tuple[str, ...] = ()
    """What the prepare stage warned of; in ``notes`` too."""
    served: Served | None = Field(None, exclude_if=lambda value: value is None)
    """Accuracies by way of serving; absent where every adapter was scored on the base as published alone."""
    merged: Merged | None = Field(None, exclude_if=lambda value: value is None)
    """Accuracies of adapters merged into their base; absent where none was to be."""
    further: tuple[FurtherTask, ...] = Field((), exclude_if=lambda value: not value)
    """Tasks other than the primary one, in the sweep's order."""

    @property
    def tested(self) -> bool:
        """Whether any recipe is compared with the reference over two or more seeds."""
        return any(row.versus_reference and row.versus_reference.p_adjusted is not None for row in self.rows)

    def all_rows(self) -> Iterator[Row]:
        """Yield rows over seeds, then rows per run."""
        yield from self.rows
        yield from self.runs
