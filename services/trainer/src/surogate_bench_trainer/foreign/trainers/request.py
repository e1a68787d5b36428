"""The request of a foreign trainer: a JSON file, and the records as lines of JSON next to it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from surogate_bench.contract import REQUEST_FILE, split_file
from surogate_bench.layout import run_name
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench.stages.requests import ForeignTrainRequest
from surogate_bench_trainer.data.encoding import Sample, completion_of, encode, end_of_text, prompt_of
from surogate_bench_trainer.data.records import PreparedRecord, Rendered
from surogate_bench_trainer.data.schedule import schedule_batches

VERSION: Final = 1
"""Incremented whenever a field changes its meaning or is removed; new ones may be added."""


class TrainerRequest(BaseModel):
    """Content of the file; docs/trainers.md documents it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = VERSION
    run: str
    """Name of the run, for logs."""
    model: Path
    """Folder in transformers format: bf16 or other unquantized safetensors, with the tokenizer."""
    train: Path
    """Lines of :class:`DataLine`."""
    validation: Path
    output: Path
    """Empty folder; gets ``adapter/`` and ``metrics.jsonl``."""
    seed: int
    threads: int | None
    """CPU threads to use; None for all."""
    steps: int
    """Optimizer steps that recipes of the sweep take."""
    samples_per_step: float
    """Mean number of samples of one of their steps, whether or not samples are packed."""
    end_of_text: str
    """Text of the end-of-text token, with which the tokens of every sample end; empty if the tokenizer has none."""
    training: dict[str, Any]
    """``training`` of the sweep without ``gpus``, ``lora`` included, whose ``target_modules`` are names of layers.

    A setting that was added in a later version is absent while it has its default.
    """
    trained_under: str | None
    """Recipe that the sweep states for this trainer."""


class DataLine(BaseModel):
    """A record, as text and as tokens: a trainer uses either."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | None
    completion: str | None
    """Without the end-of-text token; both None for a rendered text or conversation, whose tokens alone are complete."""
    input_ids: list[int]
    """Prompt, with the special tokens that the tokenizer adds, completion and end-of-text token."""
    loss_mask: list[int]
    """1 for tokens that are included in the loss, 0 for the others; as long as ``input_ids``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerInput:
    """Contents of a request."""

    request: ForeignTrainRequest
    location: ModelLocation
    tokenizer: PreTrainedTokenizerBase
    splits: Mapping[str, Sequence[PreparedRecord]]
    """Prepared records of ``train`` and ``validation``."""
    special_tokens: bool
    """Whether prompts get the special tokens that the tokenizer adds."""
    target_modules: Sequence[str] = ()
    """Names of the layers that ``training.lora.target_modules`` stands for; as the sweep states it if empty."""


def write_trainer_request(given: TrainerInput, folder: Path, output: Path) -> tuple[Path, TrainerRequest]:
    """Write request and records into ``folder``; returns the path of the request, and its content."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep, seed = given.request.sweep, given.request.seed
    samples = {
        name: encode(records, given.tokenizer, sweep.data, special_tokens=given.special_tokens)
        for name, records in given.splits.items()
    }
    for name, found in samples.items():
        _write_lines(given, name, found, folder / split_file(name))
    schedule = schedule_batches([len(sample.tokens) for sample in samples["train"]], sweep.training, seed=seed)
    content = TrainerRequest(
        run=run_name(given.request.trainer, seed),
        model=Path(given.location.name_or_path).absolute(),
        train=folder / split_file("train"),
        validation=folder / split_file("validation"),
        output=output,
        seed=seed,
        threads=given.request.threads,
        steps=schedule.total_steps,
        samples_per_step=len(samples["train"]) / schedule.steps_per_epoch,
        end_of_text=end_of_text(given.tokenizer),
        training=_training_of(given),
        trained_under=sweep.trainer(given.request.trainer).trained_under,
    )
    path = folder / REQUEST_FILE
    path.write_text(content.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path, content


def _training_of(given: TrainerInput) -> dict[str, Any]:
    """Return the settings of training, with names in the place of expressions for layers."""
    settings = given.request.sweep.training.model_dump(mode="json", exclude={"gpus"})  # it has one
    stated = settings["lora"]["target_modules"]
    if given.target_modules and set(stated) != set(given.target_modules):
        settings["lora"]["target_modules"] = list(given.target_modules)
    return settings


def _write_lines(given: TrainerInput, split: str, samples: Sequence[Sample], path: Path) -> None:
    spec, loss_on = given.request.sweep.data, given.request.sweep.training.loss_on
    with path.open("w", encoding="utf-8") as file:
        for record, sample in zip(given.splits[split], samples, strict=True):
            mask = [0] * len(sample.tokens)
            for start, end in sample.ranges(loss_on):
                mask[start:end] = [1] * (end - start)
            prompt = completion = None
            if not isinstance(record, Rendered):
                prompt, completion = prompt_of(record, spec), completion_of(record, spec)
            line = DataLine(prompt=prompt, completion=completion, input_ids=sample.tokens, loss_mask=mask)
            file.write(json.dumps(line.model_dump(), ensure_ascii=False) + "\n")
