"""Results of stages, as their manifests record them, and lines of their output files."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


InputName = Literal["data", "model", "tasks", "adapters", "trainers", "further_tasks", "task_data"]
"""Local inputs that a sweep names: its data, its model, its primary lm-eval task, its foreign adapters, files in the
commands of its foreign trainers, its further tasks and their data."""


class SplitInfo(_Result):
    """One prepared data split."""

    records: int
    sha256: str


class PrepareResult(_Result):
    """The data and model that the sweep used."""

    data: dict[Literal["train", "validation", "test"], SplitInfo]
    model_source: str
    """Hub name with commit, folder, or built-in name."""
    model_in_store: bool
    """True where the model was converted and is stored under ``prepare/model``."""
    model_commit: str | None = None
    """Commit of a hub model, which every later stage loads, even if the branch has moved."""
    inputs: dict[InputName, dict[str, str]] = {}
    """SHA-256 of every local file that was read, and of the files of a converted model, by input and file name; without
    those in manifests of older versions."""
    warnings: tuple[str, ...] = ()
    """Warnings for the user, one sentence each."""
    special_tokens: tuple[str, ...] | None = None
    """Special tokens, such as one for the beginning of a sequence, that the tokenizer adds to a prompt, in training and
    in scoring alike; None in results of versions that added none."""
    answer_ends: tuple[int, ...] | None = Field(None, exclude_if=lambda value: value is None)
    """Tokens at which answers end where the tokenizer has no end-of-text token, so that servers stop at no other; None
    where it has one, and in results of versions that refused such a tokenizer."""
    full_attention: bool | None = None
    """Whether every layer attends to all earlier tokens, without windows, soft-capping or sinks; None in manifests of
    versions that ignored them."""
    chat_template: bool = Field(False, exclude_if=lambda value: not value)
    """Whether training records are conversations, rendered by the tokenizer's chat template."""
    tasks: dict[str, SplitInfo] = Field({}, exclude_if=lambda value: not value)
    """Test records of further tasks that score data given in the sweep, by task."""

    def of_task(self, task: str | None) -> Self:
        """Return what a further task scores in place of what the primary one does; as it is for None."""
        if task is None:
            return self
        tests = {"test": self.tasks[task]} if task in self.tasks else {}
        files = {
            name.removeprefix(f"{task}/"): digest
            for name, digest in self.inputs.get("further_tasks", {}).items()
            if name.startswith(f"{task}/")
        }
        inputs = {name: found for name, found in self.inputs.items() if name != "tasks"}
        return self.model_copy(
            update={"data": self.data | tests, "inputs": inputs | ({"tasks": files} if files else {})}
        )


class ScoredData(_Result):
    """The records that a task scores."""

    source: str
    """The sweep's data set, or for a task that keeps its own the hub name (``name:config``) or files."""
    split: str
    records: int
    """Records that are scored."""
    sha256: str
    """SHA-256 of those records as lines of JSON."""
    prompt: Literal["sweep", "task"]
    """Whether the prompt is the sweep's or the task's."""
    num_fewshot: int
    chat_template: bool = Field(False, exclude_if=lambda value: not value)
    """Whether prompts are rendered by the tokenizer's chat template."""


class CheckResult(_Result):
    """Result of a passed check; a failed check has none."""

    scored: ScoredData | None = None
    """Result of the task check."""
    omitted: str | None = None
    """Reason why nothing could be checked."""


class ValidationPoint(_Result):
    """Validation loss (nats per counted token) after an optimizer step."""

    step: int
    loss: float


class TrainResult(_Result):
    """One finished training run."""

    steps: int
    tokens: int
    """Tokens of real samples that went through the model, padding excluded."""
    train_seconds: float
    """Wall time of the optimizer steps, over all attempts; validation and checkpoints excluded."""
    tokens_per_second: float
    side_by_side: int
    """Trainers that may have run on the machine at the same time."""
    threads: int
    """CPU threads of each process."""
    processes: int = Field(1, exclude_if=lambda value: value == 1)
    """Processes, one for each GPU, that trained the run together in its last attempt."""
    peak_memory_bytes: int
    """Peak device memory on a GPU, peak resident set on a CPU; of the first process where there are several."""
    weight_bytes: int
    """Stored bytes of the linear layers inside the transformer blocks, scales included."""
    operand_cache_bytes: int
    """Bytes of cached low-precision operands in addition to them (emulation keeps codes in bf16)."""
    covered_share: float | None = None
    """Share of the blocks' weight matrices that the recipe covers: less than 1 where it skips blocks; None in results
    that were written before it was recorded."""
    kept_layers: tuple[str, ...] = ()
    """Layers of the blocks that stay in bf16 because the recipe's formats do not divide their dimensions."""
    padded_layers: tuple[str, ...] = Field((), exclude_if=lambda value: not value)
    """Layers of the blocks whose last blocks of the format were padded with zeros for that reason."""
    final_train_loss: float
    """Mean over the last 20 steps."""
    validation: tuple[ValidationPoint, ...]
    """Losses in the precision of the recipe: its stored weights and its forward products, scales as they are."""
    served_validation_loss: float | None = None
    """Validation loss of the finished adapter on the served base: bf16 weights and bf16 products, for every recipe.
    None in results of earlier versions, and where memory for it was missing or it was not finite."""
    adapter_sha256: str
    """Content hash of adapter_model.safetensors and adapter_config.json together."""
    resumed_from_step: int
    """Step from which the last attempt continued; 0 for a run that was never interrupted."""


class _ForeignAdapterResult(_Result):
    """What was found in the files of an adapter that other software trained."""

    source_files: dict[str, str]
    """SHA-256 of the files that were read, by name."""
    adapter_sha256: str
    """Content hash as in :attr:`TrainResult.adapter_sha256`, of the files that were written."""
    ranks: tuple[int, ...]
    """Different ranks of its layers, ascending."""
    alphas: tuple[float, ...]
    """Different scaling numerators, ascending."""
    use_rslora: bool
    """Whether updates are multiplied by alpha / sqrt(rank) rather than alpha / rank."""
    target_modules: tuple[str, ...]
    """Last parts of the names of the adapted layers."""
    layers: int
    """Number of adapted layers."""
    parameters: int
    peft_version: str | None
    """Version that the adapter states."""
    base_model: str | None
    """Base model as the adapter states it."""
    trained_under: str | None
    """Recipe that it was trained with, as the sweep states it; None if that is not known."""
    warnings: tuple[str, ...]
    """Warnings for the user, one sentence each."""


class ImportResult(_ForeignAdapterResult):
    """One adapter that was trained elsewhere, as it was imported."""

    source: str
    """Folder, URL, or hub name with commit."""
    revision: str | None
    """Commit of an adapter of the hub."""


class ForeignTrainResult(_ForeignAdapterResult):
    """One adapter that a foreign trainer trained for this sweep; what the trainer did not report is None."""

    command: tuple[str, ...]
    """The command as the sweep gives it."""
    image: str | None = Field(None, exclude_if=lambda value: value is None)
    """Container image that it ran in; None on one machine."""
    seconds: float | None
    """Wall time of the command, its start included; None where it ran in a container of its own."""
    peak_memory_bytes: int | None
    """Largest resident set of one of its processes; None where a GPU held the model, and as for :attr:`seconds`."""
    side_by_side: int
    """Trainers that may have run on the machine at the same time."""
    threads: int | None
    """CPU threads that it was given to use."""
    steps: int | None
    """Optimizer steps that it reported."""
    tokens: int | None
    train_seconds: float | None
    """Sum of the seconds of all steps."""
    final_train_loss: float | None
    """Mean over the last 20 steps."""
    validation: tuple[ValidationPoint, ...]
    """Losses as it reported them."""
    served_validation_loss: float | None
    """As :attr:`TrainResult.served_validation_loss`, computed here from the adapter; comparable with all rows."""

    @property
    def tokens_per_second(self) -> float | None:
        """Speed, where both tokens and seconds were reported."""
        return self.tokens / self.train_seconds if self.tokens and self.train_seconds else None


CUT_OFF = "length"
"""Finish reason of an answer that max_gen_toks ended."""


class Metric(_Result):
    """An accuracy and its standard error sqrt(p (1 - p) / (n - 1))."""

    accuracy: float
    stderr: float


class EvalResult(_Result):
    """One finished evaluation."""

    task: str
    model: str
    """Name under which vLLM served it."""
    samples: int
    strict: Metric
    """Accuracy by :attr:`metric`: the headline."""
    flexible: Metric
    """Accuracy by :attr:`second_metric`; equal to ``strict`` where there is one metric only."""
    metric: str | None = Field(None, exclude_if=lambda value: value is None)
    """What ``strict`` is, as lm-eval names it; None for exact match of the number after ``####``."""
    second_metric: str | None = Field(None, exclude_if=lambda value: value is None)
    """What ``flexible`` is; None where there is one metric only, and where ``metric`` is None: then
    ``flexible`` is exact match of the last number in the answer."""
    empty_answers: int
    """Completed answers without text, counted as wrong; a request that failed fails the evaluation instead."""
    cut_off_answers: int | None = Field(None, exclude_if=lambda value: value is None)
    """Answers that max_gen_toks ended; None, as in the next two, in results of versions that did not record it."""
    unformatted_answers: int | None = Field(None, exclude_if=lambda value: value is None)
    """Generated answers in which the strict filter found no answer."""
    answer_tokens: int | None = Field(None, exclude_if=lambda value: value is None)
    """Generated tokens of all answers together."""
    seconds: float
    """Wall time of lm-eval, start-up excluded."""
    parallel_evaluations: int
    scored: ScoredData | None = None
    """None in results of versions that did not record it."""
    special_tokens: tuple[str, ...] | None = None
    """What the tokenizer adds to a prompt, as in :attr:`PrepareResult.special_tokens`."""
    served_under: str | None = Field(None, exclude_if=lambda value: value is None)
    """Recipe whose stored weights and forward products the base had; None for the base as published."""
    merged: bool = Field(False, exclude_if=lambda value: not value)
    """Whether the adapter was merged into the base before it was served."""
    serving_version: int | None = Field(None, exclude_if=lambda value: value is None)
    """SERVING_VERSION of the server; None for an unmerged adapter on the base as published, and in results of versions
    that did not record it."""


class MetricsLine(_Result):
    """One line of ``metrics.jsonl``: a training step, or a validation (then ``eval_loss`` alone is set)."""

    step: int
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int | None = None
    """Real tokens of this step."""
    seconds: float | None = None
    """Wall time of this step."""
    eval_loss: float | None = None


class SampleLine(_Result):
    """One line of ``samples.jsonl``: a scored answer."""

    index: int
    question: str
    target: str
    """The reference answer: the number after ``####`` where it has one, or the choice."""
    response: str
    """The complete answer of the model."""
    strict_match: bool
    flexible_match: bool
    formatted: bool | None = Field(None, exclude_if=lambda value: value is None)
    """Whether the strict filter found an answer, right or wrong; None, as in the next two, where it is not known."""
    finish_reason: str | None = Field(None, exclude_if=lambda value: value is None)
    """Why it ended, as vLLM states it; :data:`CUT_OFF` where max_gen_toks ended it."""
    tokens: int | None = Field(None, exclude_if=lambda value: value is None)
    """Number of generated tokens."""
