"""The content of a report as data: the one source of every table, chart caption and page."""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from pydantic import Field

from surogate_bench.manifest import Hardware
from surogate_bench_orchestrator.report.model.figures import FLEXIBLE, STRICT, Comparison, Part, RowState, Score
from surogate_bench_orchestrator.report.model.merged import Merged
from surogate_bench_orchestrator.report.model.served import Served

__all__ = [
    "Comparison",
    "DataDigest",
    "Foreign",
    "FurtherTask",
    "Machine",
    "RecipeText",
    "Row",
    "RowState",
    "Score",
    "ScoredOn",
    "Summary",
    "Training",
]


class ScoredOn(Part):
    """What evaluations scored, and how the questions were shown."""

    source: str
    split: str
    records: int
    sha256: str
    """Of the records; empty for results of versions that did not record it."""
    prompt: Literal["sweep", "task"]
    """Whose prompt was shown."""
    num_fewshot: int
    chat_template: bool = False
    """Whether prompts were rendered by the tokenizer's chat template."""
    special_tokens: tuple[str, ...]
    """What the tokenizer added to each prompt."""
    runs: tuple[str, ...]
    """Names of the runs that were scored so."""


class Training(Part):
    """How the adapter was trained. Over several seeds: means, but the largest memory and the widest sharing.

    None where a foreign trainer did not report it.
    """

    engine: str | None
    steps: int | None
    tokens: int | None
    tokens_per_second: float | None
    side_by_side: int
    threads: int | None
    train_seconds: float | None
    peak_memory_bytes: int | None
    weight_bytes: int | None
    """Stored: weights of the linear layers inside the transformer blocks, scales included."""
    operand_cache_bytes: int | None
    training_weight_bytes: int | None
    """Held while training: ``weight_bytes`` and the low-precision operands that the engine keeps beside them."""
    covered_share: float | None = None
    """Share of the weights inside the transformer blocks that the recipe covers; None where it was not recorded."""
    kept_layers: tuple[str, ...] = ()
    """Layers that stay in bf16 because the recipe's formats do not divide their dimensions."""
    final_train_loss: float | None
    last_validation_loss: float | None
    """In the precision of the recipe."""
    served_validation_loss: float | None
    """Of the finished adapter on the served base (bf16 weights and products); None unless every run has it."""
    resumed_from_step: int


class Foreign(Part):
    """Where an adapter comes from that other software trained."""

    source: str
    """Of a foreign adapter: folder, URL, or hub name with commit once it is imported; of a foreign trainer: its
    command."""
    trained_under: str | None
    """Recipe, as the sweep states it."""
    adapter_sha256: str | None = None
    """Content of the adapter; None before it is there, and for a row of several runs."""


class Row(Part):
    """The base model, a recipe or foreign trainer (over all its seeds), one run of it, or a foreign adapter."""

    key: str
    """``base``, or the name of the recipe, trainer, run or adapter."""
    title: str
    recipe: str | None
    """Recipe or foreign trainer; None for the base model and for a foreign adapter."""
    seed: int | None
    """None for the base model, a foreign adapter, and a row over seeds."""
    seeds: tuple[int, ...]
    """Seeds behind ``score``; empty for the base model, a foreign adapter, and where there is no score."""
    seeds_scored: int
    """How many they are; 1 for the base model and a foreign adapter."""
    state: RowState
    reason: str
    """Why the state is not ``succeeded``; empty otherwise."""
    score: Score | None
    training: Training | None
    versus_reference: Comparison | None
    versus_base: Comparison | None
    unlike_reference: bool = False
    """Whether it was scored on other data than the reference, so that no difference is given."""
    unlike_base: bool = False
    """The same for the base model."""
    many_empty: bool = False
    """Whether more answers are empty, with any seed, than ``evaluation.max_empty_fraction`` allows."""
    scored: ScoredOn | None = None
    """What the row's runs were scored on; None where they have no score or not the same data."""
    reused_from: str = ""
    """``name/spec-hash`` of the sweep that a single run was taken from, or what each of its stages was, as in
    ``training name/spec-hash``; empty where it was computed in this sweep, and for a row of several runs."""
    foreign: Foreign | None = None
    """Of a foreign adapter, and of a foreign trainer."""

    @property
    def is_imported(self) -> bool:
        """Whether it is a foreign adapter's, which has no seed."""
        return self.foreign is not None and self.recipe is None

    @property
    def is_base(self) -> bool:
        """Whether it is the base model's."""
        return self.recipe is None and self.foreign is None


class FurtherTask(Part):
    """What a task beside the primary one shows, on the base as published; rows have no figures of trainings."""

    task: str
    metric: str
    """What ``accuracy`` of its scores is."""
    second_metric: str | None
    """What ``flexible_accuracy`` of its scores is; None where the task has one metric."""
    evaluated_on: str
    scored: tuple[ScoredOn, ...]
    rows: tuple[Row, ...]
    """As in the summary, compared within this task."""
    runs: tuple[Row, ...]
    footnotes: tuple[str, ...]
    notes: tuple[str, ...]


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
    """What the marks in the tables mean."""
    notes: tuple[str, ...]
    """What a reader must know to interpret the figures."""
    warnings: tuple[str, ...] = ()
    """What the prepare stage warned of; in ``notes`` too."""
    served: Served | None = Field(None, exclude_if=lambda value: value is None)
    """Accuracies by way of serving; absent where every adapter was scored on the base as published alone."""
    merged: Merged | None = Field(None, exclude_if=lambda value: value is None)
    """Accuracies of adapters merged into their base; absent where none was to be."""
    further: tuple[FurtherTask, ...] = Field((), exclude_if=lambda value: not value)
    """Tasks beside the primary one, in the sweep's order."""

    @property
    def tested(self) -> bool:
        """Whether any recipe is compared with the reference over two or more seeds."""
        return any(row.versus_reference and row.versus_reference.p_adjusted is not None for row in self.rows)

    def all_rows(self) -> Iterator[Row]:
        """Yield rows over seeds, then rows per run."""
        yield from self.rows
        yield from self.runs
