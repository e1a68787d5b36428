"""The content of a report as data: the one source of every table, chart caption and page."""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from surogate_bench.manifest import Hardware

RowState = Literal["succeeded", "failed", "skipped", "pending"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Part):
    """Accuracy on the test questions; fractions in 0..1. Over several seeds: means over them."""

    accuracy: float
    """Strict exact match: the headline."""
    stderr: float
    low: float
    """Lower end of the 95 % interval: over questions with one seed, over seeds and questions with several."""
    high: float
    seed_stddev: float | None
    """Standard deviation of the seeds' accuracies; None with one seed."""
    flexible_accuracy: float
    samples: int
    """Distinct test questions."""
    empty_answers: int
    """Over all seeds."""
    largest_empty_share: float = 0.0
    """Largest share of empty answers that a seed has."""
    eval_seconds: float
    parallel_evaluations: int


class Comparison(_Part):
    """Paired difference to another row on the same questions and seeds; positive where this row is better."""

    delta: float
    """``accuracy`` minus ``other_accuracy``."""
    stderr: float
    low: float
    """Lower end of the 95 % interval of ``delta``: over questions with one seed, over seeds and questions with more."""
    high: float
    seeds: tuple[int, ...]
    """Seeds that both have; the difference is taken over them."""
    accuracy: float
    """This row's, over ``seeds``."""
    other_accuracy: float
    """The other row's, over ``seeds``."""
    of_all_seeds: bool
    """Whether both rows' own accuracies are over exactly ``seeds``, so that ``delta`` is the difference of them."""
    only_this: int
    """Answers (question and seed) that only this row has right."""
    only_reference: int
    p_value: float | None
    """Of no difference between the recipes, over seeds and questions; None with fewer than two seeds."""
    p_adjusted: float | None
    """``p_value``, Holm-adjusted over the rows that have one against the same reference."""
    p_questions: float | None
    """Of no difference between these two adapters on other questions of the kind (exact McNemar test): it concerns the
    questions only, not the recipes. None with several seeds."""
    p_questions_adjusted: float | None
    """``p_questions``, Holm-adjusted over the rows that have one against the same reference."""


class ScoredOn(_Part):
    """What evaluations scored, and how the questions were shown."""

    source: str
    split: str
    records: int
    sha256: str
    """Of the records; empty for results of versions that did not record it."""
    prompt: Literal["sweep", "task"]
    """Whose prompt was shown."""
    num_fewshot: int
    special_tokens: tuple[str, ...]
    """What the tokenizer added to each prompt."""
    runs: tuple[str, ...]
    """Names of the runs that were scored so."""


class Training(_Part):
    """How the adapter was trained. Over several seeds: means, but the largest memory and the widest sharing."""

    engine: str | None
    steps: int
    tokens: int
    tokens_per_second: float
    side_by_side: int
    threads: int
    train_seconds: float
    peak_memory_bytes: int
    weight_bytes: int
    """Stored: weights of the linear layers inside the transformer blocks, scales included."""
    operand_cache_bytes: int
    training_weight_bytes: int
    """Held while training: ``weight_bytes`` and the low-precision operands that the engine keeps beside them."""
    covered_share: float | None = None
    """Share of the weights inside the transformer blocks that the recipe covers; None where it was not recorded."""
    final_train_loss: float
    last_validation_loss: float | None
    """In the precision of the recipe."""
    served_validation_loss: float | None
    """Of the finished adapter on the served base (bf16 weights and products); None unless every run has it."""
    resumed_from_step: int


class Foreign(_Part):
    """Where a foreign adapter comes from, as far as that is known; its training is not."""

    source: str
    """Folder, URL, or hub name with commit once it is imported."""
    trained_under: str | None
    """Recipe, as the sweep states it."""
    adapter_sha256: str | None = None
    """Content of the imported files; None before."""


class Row(_Part):
    """The base model, a recipe (over all its seeds), one run of a recipe, or a foreign adapter."""

    key: str
    """``base``, the recipe's name, the run's name, or the adapter's name."""
    title: str
    recipe: str | None
    """None for the base model and for a foreign adapter."""
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
    """Of a foreign adapter."""

    @property
    def is_base(self) -> bool:
        """Whether it is the base model's."""
        return self.recipe is None and self.foreign is None


class RecipeText(_Part):
    """Description of one recipe."""

    name: str
    title: str
    storage: str
    compute: str
    details: str


class DataDigest(_Part):
    """One data split as it was used."""

    split: str
    records: int
    sha256: str


class Machine(_Part):
    """One kind of machine, and the stages that ran on it."""

    description: str
    details: Hardware
    runs: tuple[str, ...]


class Summary(_Part):
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
    """The base model where it is scored, then every recipe and every foreign adapter in the sweep's order."""
    runs: tuple[Row, ...]
    """The same for each run, where the sweep has several seeds; empty otherwise."""
    recipes: tuple[RecipeText, ...]
    footnotes: tuple[str, ...]
    """What the marks in the tables mean."""
    notes: tuple[str, ...]
    """What a reader must know to interpret the figures."""
    warnings: tuple[str, ...] = ()
    """What the prepare stage warned of; in ``notes`` too."""

    @property
    def tested(self) -> bool:
        """Whether any recipe is compared with the reference over two or more seeds."""
        return any(row.versus_reference and row.versus_reference.p_adjusted is not None for row in self.rows)

    def all_rows(self) -> Iterator[Row]:
        """Yield rows over seeds, then rows per run."""
        yield from self.rows
        yield from self.runs
