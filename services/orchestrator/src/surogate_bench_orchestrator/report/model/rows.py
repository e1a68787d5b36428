"""Rows of the report: scores, training and origin of the base model, a recipe, a run, or a foreign adapter."""

from typing import Literal

from pydantic import Field

from surogate_bench_orchestrator.report.model.scores import Comparison, Kept, Part, RowState, Score


class ScoredOn(Part):
    """What evaluations scored, and how the questions were shown."""

    source: str
    split: str
    records: int
    sha256: str
    """Digest of the records; empty for results of versions that did not record it."""
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
    """CPU threads of each process."""
    processes: int | None = None
    """Processes, one for each GPU, that trained the run together."""
    train_seconds: float | None
    peak_memory_bytes: int | None
    weight_bytes: int | None
    """Stored: weights of the linear layers inside the transformer blocks, scales included."""
    operand_cache_bytes: int | None
    training_weight_bytes: int | None
    """Held while training: ``weight_bytes`` and the low-precision operands that the engine keeps."""
    covered_share: float | None = None
    """Share of the weights inside the transformer blocks that the recipe covers; None where it was not recorded."""
    kept_layers: tuple[str, ...] = ()
    """Layers that stay in bf16 because the recipe's formats do not divide their dimensions."""
    padded_layers: tuple[str, ...] = Field((), exclude_if=lambda value: not value)
    """Layers whose last blocks were padded with zeros for that reason."""
    final_train_loss: float | None
    last_validation_loss: float | None
    """Loss in the precision of the recipe."""
    served_validation_loss: float | None
    """Loss of the finished adapter on the served base (bf16 weights and products); None unless every run has it."""
    resumed_from_step: int


class Foreign(Part):
    """Where an adapter comes from that other software trained."""

    source: str
    """For a foreign adapter its folder, URL, or hub name with commit once it is imported; for a foreign trainer its
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
    kept: Kept = Kept()
    """Of which seeds the answers were kept."""
    scored: ScoredOn | None = None
    """What the row's runs were scored on; None where they have no score or not the same data."""
    reused_from: str = ""
    """``name/spec-hash`` of the sweep that a single run was taken from, or what each of its stages was, as in
    ``training name/spec-hash``; empty where it was computed in this sweep, and for a row of several runs."""
    foreign: Foreign | None = None
    """Set for a foreign adapter and for a foreign trainer."""

    @property
    def is_imported(self) -> bool:
        """Whether it is a foreign adapter's, which has no seed."""
        return self.foreign is not None and self.recipe is None

    @property
    def is_base(self) -> bool:
        """Whether it is the base model's."""
        return self.recipe is None and self.foreign is None
