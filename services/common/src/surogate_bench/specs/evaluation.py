"""How adapters are served and scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeGuard

from pydantic import Field, field_validator, model_validator

from surogate_bench.specs.base import Spec
from surogate_bench.specs.tasks import TASK_DESCRIPTION, TASK_NAME, KeptPart, MetricName, TaskEntry, metric_field

MANAGED_ARGUMENTS = {
    "--model": "set model",
    "--revision": "set model.revision",
    "--tokenizer-revision": "set model.revision",
    "--seed": "set seeds",
    "--max-lora-rank": "set serving.max_lora_rank",
    "--max-loras": "set serving.max_loras",
    "--max-model-len": "set serving.max_model_len",
    "--gpu-memory-utilization": "set serving.gpu_memory_utilization",
    "--kv-cache-memory-bytes": "set serving.kv_cache_gib",
    "--host": "the model server chooses it",
    "--port": "the model server chooses a free one",
    "--uds": "the model server asks vLLM over TCP",
    "--api-key": "the model server makes its own",
    "--served-model-name": "the model server chooses it",
    "--enable-lora": "it is always given",
    "--no-enable-lora": "adapters could not be served",
    "--lora-modules": "adapters are loaded while it runs",
}
"""Options of vLLM that extra_args must not repeat, and what to do instead: a repeated option would silently replace the
first."""


AS_PUBLISHED, OWN, ALL = "bf16", "own", "all"
"""Keywords of ``serving.under``, in addition to names of recipes."""

MANY_EMPTY_FRACTION = 0.2
"""Share of empty answers above which an accuracy reflects stopping at once more than solving."""

NO_REMOTE_CODE = "code from a model repository is never run: remove --trust-remote-code"


class ServingSpec(Spec):
    """Settings of the vLLM servers."""

    under: tuple[str, ...] = Field(
        (AS_PUBLISHED,),
        min_length=1,
        exclude_if=lambda value: value == (AS_PUBLISHED,),  # leaves the hash of sweeps without it unchanged
        description="Weights and arithmetic of the base on which adapters, and the unmodified model, are scored: bf16 "
        "(as published; always included), own (each adapter under the recipe it was trained with), names of the "
        "sweep's recipes, or all (every recipe of the sweep). One server each.",
    )

    merged: bool = Field(
        False,
        exclude_if=lambda value: not value,  # leaves the hash of sweeps without it unchanged
        description="Also score every adapter merged into its base (in fp32, rounded once to bf16), in each of the "
        "ways of serving in which the adapter is scored: as published, the merged weights are served as they are; a "
        "recipe quantizes them. One server for each adapter and way.",
    )
    max_lora_rank: int = Field(64, ge=1, le=512, description="--max-lora-rank; no adapter may have a higher rank.")
    max_loras: int = Field(4, ge=1, description="--max-loras: adapters in one batch.")
    max_model_len: int = Field(2048, ge=16, description="--max-model-len: prompt and answer together, in tokens.")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="--gpu-memory-utilization (GPU only).")
    kv_cache_gib: float = Field(1.0, gt=0, description="Memory for the key-value cache, GiB (CPU only).")
    extra_args: tuple[str, ...] = Field(
        (), description="Additional arguments for the vLLM server, except for those that are set by surogate-bench."
    )
    start_timeout_s: float = Field(900.0, gt=0, description="Seconds after which a server that is not ready fails.")

    @field_validator("under")
    @classmethod
    def _order_has_no_meaning(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Sort, so that equal requests have equal hashes."""
        others = {ALL} if ALL in value else set(value) - {AS_PUBLISHED}
        return (AS_PUBLISHED, *sorted(others, key=lambda name: (name != OWN, name)))

    @field_validator("extra_args")
    @classmethod
    def _no_remote_code(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("trust-remote-code" in argument.replace("_", "-") for argument in value):
            raise ValueError(NO_REMOTE_CODE)
        return value

    @field_validator("extra_args")
    @classmethod
    def _nothing_managed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for argument in value:
            option = argument.partition("=")[0].replace("_", "-")
            if option in MANAGED_ARGUMENTS:
                raise ValueError(f"remove {option}: {MANAGED_ARGUMENTS[option]}")
        return value


class EvaluationSpec(Spec):
    """The lm-eval run behind every accuracy (``local-completions``)."""

    task: str = Field("ro_gsm8k", pattern=TASK_NAME, description=TASK_DESCRIPTION)
    tasks_dir: Path | None = Field(None, description="Folder with additional task YAML files.")
    tasks: tuple[TaskEntry, ...] = Field(
        (),
        max_length=16,
        exclude_if=lambda value: not value,  # leaves the hash of sweeps without it unchanged
        description="Tasks to score, each by name or with its own settings. One is primary, and the same as task with "
        "the settings of evaluation; if task is given, all of these are further tasks. Further tasks are scored on the "
        "base as published, and reported in separate tables.",
    )
    keep_from_task: tuple[KeptPart, ...] = Field(
        (),
        max_length=3,
        exclude_if=lambda value: not value,  # leaves the hash of sweeps without it unchanged
        description="Parts of the task's own file that are used instead of the sweep's: data (dataset_path and related "
        "fields; also requires prompt), prompt (doc_to_text, doc_to_target and how examples are shown), num_fewshot.",
    )
    chat_template: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="Send each prompt as a message of the user, and solved examples as earlier messages, which the "
        "tokenizer's own chat template renders (lm-eval's local-chat-completions with --apply_chat_template).",
    )
    metric: MetricName | None = metric_field()
    num_fewshot: int = Field(0, ge=0, le=64, description="Solved examples shown before each question.")
    num_concurrent: int = Field(50, ge=1, le=1024, description="Requests in flight per evaluation.")
    max_retries: int = Field(3, ge=0, description="Retries of a failed request.")
    max_gen_toks: int = Field(256, ge=1, description="Maximum number of tokens of an answer.")
    limit: int | None = Field(
        None, ge=2, description="Score the first N test records only; a standard error needs two."
    )
    max_empty_fraction: float = Field(
        MANY_EMPTY_FRACTION, ge=0, le=1, description="The report marks a row with a larger fraction of empty answers."
    )
    evaluate_base: bool = Field(True, description="Also score the unmodified base model.")
    parallel_evaluations: int = Field(2, ge=1, le=16, description="Adapters evaluated at the same time on one server.")
    timeout_s: float = Field(3600.0, gt=0, description="Seconds for one evaluation.")

    @model_validator(mode="before")
    @classmethod
    def _primary_first(cls, given: object) -> object:
        """Write the primary task as ``task``, so that both ways of writing a sweep are equal."""
        if not isinstance(given, dict) or not isinstance(given.get("tasks"), list | tuple):
            return given
        entries = [_as_mapping(entry) for entry in given["tasks"]]
        sound = [entry for entry in entries if _may_be_primary(entry)]
        if not entries or len(sound) < len(entries):
            return given | {"tasks": entries}  # refused where it is written
        return given | _with_primary(given, sound)

    @model_validator(mode="after")
    def _distinct_tasks(self) -> Self:
        names = [self.task, *(entry.name for entry in self.tasks)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"tasks: {twice} appears more than once")
        for entry in self.tasks:
            if entry.keep_from_task:
                raise ValueError(f"tasks: {entry.name} is not primary: remove its keep_from_task, or give it data")
            if entry.data is not None and entry.num_fewshot:
                raise ValueError(
                    f"tasks: {entry.name} has its own data, without solved examples: remove its num_fewshot"
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kept = self.keep_from_task
        if "data" in kept and "prompt" not in kept:
            raise ValueError("keep_from_task: a task that keeps its data also needs its own prompt: add prompt")
        if "num_fewshot" in kept and self.num_fewshot:
            raise ValueError("keep_from_task: remove num_fewshot from it, or from evaluation")
        return self

    @property
    def further_tasks(self) -> tuple[str, ...]:
        """Names of the tasks other than the primary one."""
        return tuple(entry.name for entry in self.tasks)

    def entry(self, name: str) -> TaskEntry:
        """Return the settings of a further task.

        Raises:
            KeyError: there is no further task of that name.
        """
        return {entry.name: entry for entry in self.tasks}[name]

    def of_task(self, name: str) -> Self:
        """Return the settings with a further task in place of the primary one.

        Raises:
            KeyError: there is no further task of that name.
        """
        entry = self.entry(name)
        return self.model_copy(
            update={
                "task": name,
                "tasks_dir": entry.tasks_dir,
                "keep_from_task": entry.kept,
                "num_fewshot": entry.num_fewshot or 0,
                "limit": entry.limit,
                "metric": entry.metric,
                "max_gen_toks": entry.max_gen_toks or self.max_gen_toks,
                "tasks": (),
            }
        )


def written_at(location: tuple[int | str, ...], given: object) -> tuple[int | str, ...]:
    """Return where a document has a setting of ``evaluation``, which may list the primary task among ``tasks``.

    Args:
        location: Path of the setting within a validated ``evaluation``, where the primary task is ``task``.
        given: The section as it was written.
    """
    place = _place_of_primary(given)
    if place is None or not isinstance(given, dict):
        return location
    match location:
        case ("tasks", int(index), *rest):
            return ("tasks", index + (index >= place), *rest)
        case ("task", *rest):
            name = () if isinstance(given["tasks"][place], str) else ("name",)
            return ("tasks", place, *name, *rest)
        case (str(name), *_) if name not in given and name in given["tasks"][place]:
            return ("tasks", place, *location)
    return location


def _place_of_primary(given: object) -> int | None:
    """Return which entry of ``tasks`` became the primary task; None if none did."""
    entries = given.get("tasks") if isinstance(given, dict) and "task" not in given else None
    if not isinstance(entries, list | tuple) or not entries:
        return None
    sound = [entry for entry in map(_as_mapping, entries) if _may_be_primary(entry)]
    if len(sound) < len(entries) or len(_marked(sound)) > 1:
        return None
    return _primary_of(sound)


def _marked(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    return [place for place, entry in enumerate(entries) if entry.get("primary")]


def _primary_of(entries: Sequence[Mapping[str, Any]]) -> int:
    """Return the place of the entry that is marked, at most one, or of the first."""
    return next(iter(_marked(entries)), 0)


def _as_mapping(entry: object) -> object:
    return {"name": entry} if isinstance(entry, str) else entry


def _may_be_primary(entry: object) -> TypeGuard[dict[str, Any]]:
    """Return whether an entry has a name and settings of tasks alone, so that they may become the evaluation's."""
    if not isinstance(entry, dict) or not entry.keys() <= TaskEntry.model_fields.keys():
        return False
    return isinstance(entry.get("name"), str) and isinstance(entry.get("primary", False), bool)


def _with_primary(given: dict[str, Any], entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return ``tasks`` without the primary one, whose settings are next to ``task``.

    Raises:
        ValueError: several are primary, or a setting of the primary one is given twice.
    """
    names = [given["task"]] if "task" in given else []
    if len(primaries := [*names, *(entries[place]["name"] for place in _marked(entries))]) > 1:
        raise ValueError(f"tasks: only one may be primary, and {' and '.join(map(str, primaries))} are")
    if names:
        return {"tasks": entries}
    primary = entries[_primary_of(entries)]
    settings = {key: value for key, value in primary.items() if key not in {"name", "primary"} and value is not None}
    if "data" in settings:
        raise ValueError(f"tasks: {primary['name']} is primary and scores the test records of data: remove its data")
    if twice := sorted(settings.keys() & given.keys()):
        raise ValueError(f"tasks: {twice[0]} is given in evaluation and for {primary['name']}: remove one")
    return {"task": primary["name"], **settings, "tasks": [entry for entry in entries if entry is not primary]}
