"""The input of a foreign trainer: request, records and model, in folders that it may read."""

import shutil
from pathlib import Path

from surogate_bench.inputs.content import model_files
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench_trainer.foreign.trainers.attempt import Attempt, fresh_folder
from surogate_bench_trainer.foreign.trainers.request import TrainerInput, TrainerRequest, write_trainer_request


def give(attempt: Attempt) -> tuple[Path, TrainerRequest]:
    """Write request and records for a command of this machine; returns the path of the request, and its content.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """
    return _write(attempt, attempt.location)


def give_copies(attempt: Attempt) -> None:
    """Write everything that a command in a separate container needs into the folder that both containers share.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
        OSError: the folder is full.
    """
    copies = fresh_folder(attempt.model_copy)
    for name, path in model_files(Path(attempt.location.name_or_path)).items():
        shutil.copyfile(path, copies / name)
    fresh_folder(attempt.scratch)
    _write(attempt, ModelLocation(str(copies)))


def _write(attempt: Attempt, model: ModelLocation) -> tuple[Path, TrainerRequest]:
    given = TrainerInput(
        request=attempt.request,
        location=model,
        tokenizer=attempt.tokenizer,
        splits={"train": attempt.records("train"), "validation": attempt.records("validation")},
        special_tokens=attempt.special_tokens,
        target_modules=attempt.base.selection(attempt.base.targets(attempt.sweep.training.lora)),
    )
    return write_trainer_request(given, fresh_folder(attempt.given), fresh_folder(attempt.left))
