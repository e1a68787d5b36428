"""The stage that has other software train an adapter: request, command, checks, and the published result."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from surogate_bench.adapter_files import local_adapter_files
from surogate_bench.contract import (
    ADAPTER_FOLDER,
    DATA_FOLDER,
    METRICS_FILE,
    TRAINER_REQUEST_VARIABLE,
    split_file,
)
from surogate_bench.errors import ConfigError, ExitCode, ForeignTrainerError, TransientError
from surogate_bench.layout import run_name
from surogate_bench.local_inputs import require_unchanged
from surogate_bench.model_source import ModelLocation, locate_model
from surogate_bench.progress import Progress, write_progress
from surogate_bench.requests import ForeignTrainRequest
from surogate_bench.results import ForeignTrainResult, PrepareResult
from surogate_bench.specs import ForeignTrainer, RecipeSweep
from surogate_bench.stages import fetch_stage, new_manifest, publish_stage, read_manifest
from surogate_bench.store import open_store
from surogate_bench.trainer_commands import full_command
from surogate_bench_trainer.data.records import PreparedRecord, read_prepared
from surogate_bench_trainer.foreign.base_layers import read_base_layers
from surogate_bench_trainer.foreign.checked import CheckedAdapter, check_adapter, last_part, write_adapter
from surogate_bench_trainer.foreign.command import Command, Ended, run_command, trainer_environment
from surogate_bench_trainer.foreign.reported import Reported, newest_line, read_reported
from surogate_bench_trainer.foreign.sources import copy_adapter, limits_of
from surogate_bench_trainer.foreign.trainer_request import TrainerInput, TrainerRequest, write_trainer_request
from surogate_bench_trainer.model.loading import loading_model
from surogate_bench_trainer.training.served_validation import served_validation_loss
from surogate_bench_trainer.training.setup import build_data, configure_process, training_device

_log = logging.getLogger(__name__)


def foreign_train_stage(request: ForeignTrainRequest, work_dir: Path) -> None:
    """Have a foreign trainer train one adapter, check it and publish it; a finished stage is left alone.

    Raises:
        ConfigError: the sweep has no such trainer, its program cannot be started, or its files were changed.
        ForeignTrainerError: it failed, passed its deadline, or left no adapter that vLLM serves.
        PermanentError: the prepare stage is missing.
        TransientError: it was killed or asks for another attempt, or the store is unavailable.
    """
    store = open_store(request.store)
    prefix = request.layout.train(run_name(request.trainer, request.seed))
    if read_manifest(store, prefix) is not None:
        return
    trainer = _trainer_of(request)
    write_progress(work_dir, Progress(phase="starting"))
    manifest = fetch_stage(store, request.layout.prepare, work_dir / "prepared", under=f"{DATA_FOLDER}/")
    prepared = manifest.require_result(PrepareResult)
    require_unchanged(prepared, request.sweep, ["trainers"])
    configure_process(request.threads)
    location = locate_model(request.sweep.model, store=store, layout=request.layout, cache=work_dir / "model")
    training = _Training(
        request=request,
        trainer=trainer,
        location=location,
        work_dir=work_dir,
        special_tokens=prepared.special_tokens is not None,
    )
    result = training.run()
    for warning in result.warnings:
        _log.warning("%s: %s", trainer.name, warning)
    write_progress(work_dir, Progress(phase="uploading"))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    publish_stage(store, prefix, training.outputs, new_manifest(request, result, gpu=gpu))
    logged = {"final_train_loss", "served_validation_loss", "seconds", "peak_memory_bytes"}
    _log.info("the trained adapter is checked and stored", extra=result.model_dump(include=logged))


def _trainer_of(request: ForeignTrainRequest) -> ForeignTrainer:
    try:
        return request.sweep.trainer(request.trainer)
    except KeyError as error:
        raise ConfigError(
            "the sweep has no such trainer",
            field="request.trainer",
            value=request.trainer,
            remedy=f"It has {', '.join(each.name for each in request.sweep.trainers) or 'none'}.",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    """One attempt."""

    request: ForeignTrainRequest
    trainer: ForeignTrainer
    location: ModelLocation
    work_dir: Path
    special_tokens: bool

    @property
    def outputs(self) -> Path:
        """Folder of what is published."""
        return self.work_dir / "outputs"

    @property
    def sweep(self) -> RecipeSweep:
        """The sweep of the run."""
        return self.request.sweep

    def run(self) -> ForeignTrainResult:
        """Train, check and write what is published.

        Raises:
            ForeignTrainerError, TransientError, ConfigError: as :func:`foreign_train_stage`.
        """
        with loading_model(self.location.name_or_path):
            tokenizer = AutoTokenizer.from_pretrained(self.location.name_or_path)
        splits = self._splits()
        left = _fresh_folder(self.work_dir / "left")
        path, content = write_trainer_request(self._input(tokenizer, splits), self.work_dir / "request", left)
        ended = self._run_command(path, content)
        write_progress(self.work_dir, Progress(phase="checking", step=content.steps, total=content.steps))
        try:
            digest, checked = self._take_over(left)
        except ConfigError as error:
            raise ForeignTrainerError(f"the command left no usable adapter: {error}", ended.last_lines) from error
        reported = read_reported(left)
        if reported.lines:
            (self.outputs / METRICS_FILE).write_bytes(reported.content())
        write_progress(self.work_dir, Progress(phase="validating as served", step=content.steps, total=content.steps))
        loss = self._served_loss(tokenizer, splits)
        return self._result(ended, reported, checked, digest, loss)

    def _splits(self) -> dict[str, list[PreparedRecord]]:
        folder = self.work_dir / "prepared" / DATA_FOLDER
        return {name: read_prepared(folder / split_file(name)) for name in ("train", "validation")}

    def _input(self, tokenizer: PreTrainedTokenizerBase, splits: dict[str, list[PreparedRecord]]) -> TrainerInput:
        return TrainerInput(
            request=self.request,
            location=self.location,
            tokenizer=tokenizer,
            splits=splits,
            special_tokens=self.special_tokens,
        )

    def _run_command(self, path: Path, content: TrainerRequest) -> Ended:
        """Run the command to its end.

        Raises:
            ForeignTrainerError: it failed or passed its deadline.
            TransientError: it was killed, or asks for another attempt.
        """
        timeout_s = self.trainer.timeout_s or self.sweep.train_timeout_s
        command = Command(
            arguments=full_command(self.trainer, path),
            environment=trainer_environment(
                os.environ, {**self.trainer.environment, TRAINER_REQUEST_VARIABLE: str(path)}
            ),
            folder=_fresh_folder(self.work_dir / "scratch"),
            timeout_s=timeout_s,
        )
        try:
            ended = run_command(command, between=_reporting(self.work_dir, content))
        except OSError as error:
            raise ForeignTrainerError(f"the command cannot be started: {error.strerror}") from error
        if ended.code == 0:
            return ended
        if ended.code is None:
            raise ForeignTrainerError(f"the command had not ended after {timeout_s:g} s", ended.last_lines)
        if ended.code < 0:
            raise TransientError(f"the command was killed by signal {-ended.code}; it ended with: {ended.last_lines}")
        if ended.code == ExitCode.TRANSIENT:
            raise TransientError(f"the command asks for another attempt (exit code 75): {ended.last_lines}")
        raise ForeignTrainerError(f"the command ended with exit code {ended.code}", ended.last_lines)

    def _take_over(self, left: Path) -> tuple[str, CheckedAdapter]:
        """Copy, check and write the adapter; returns its content hash.

        Raises:
            ConfigError: it is missing, or vLLM does not serve it with the sweep's model.
        """
        folder, source = left / ADAPTER_FOLDER, _fresh_folder(self.work_dir / "source")
        if not folder.is_dir() or folder.is_symlink():
            raise ConfigError(
                f"there is no folder {ADAPTER_FOLDER} in the output folder",
                field=self.trainer.field,
                value=self.trainer.label,
                remedy=f"Save the adapter there with PEFT: save_pretrained(output + '/{ADAPTER_FOLDER}').",
            )
        base, max_rank = read_base_layers(self.location), self.sweep.serving.max_lora_rank
        copy_adapter(
            self.trainer, local_adapter_files(self.trainer, folder), source, limits_of(base.largest_file(max_rank))
        )
        checked = check_adapter(source, base, max_rank=max_rank, field=self.trainer.field)
        target = _fresh_folder(self.outputs) / ADAPTER_FOLDER
        return write_adapter(target, checked, base, base_model=self.sweep.model.label), checked

    def _served_loss(self, tokenizer: PreTrainedTokenizerBase, splits: dict[str, list[PreparedRecord]]) -> float | None:
        device = training_device()
        data = build_data(
            splits, tokenizer, self.sweep, seed=self.request.seed, device=device, special_tokens=self.special_tokens
        )
        return served_validation_loss(self.location, self.outputs / ADAPTER_FOLDER, data.validation, device)

    def _result(
        self, ended: Ended, reported: Reported, checked: CheckedAdapter, digest: str, loss: float | None
    ) -> ForeignTrainResult:
        names = {last_part(self.sweep.model.label), last_part(self.location.name_or_path)}
        return ForeignTrainResult(
            command=self.trainer.command,
            seconds=ended.seconds,
            peak_memory_bytes=None if torch.cuda.is_available() else ended.peak_memory_bytes,
            side_by_side=self.request.side_by_side,
            threads=self.request.threads,
            steps=reported.steps,
            tokens=reported.tokens,
            train_seconds=reported.seconds,
            final_train_loss=reported.final_train_loss,
            validation=reported.validation,
            served_validation_loss=loss,
            adapter_sha256=digest,
            trained_under=self.trainer.trained_under,
            warnings=(*checked.warnings(self.sweep, names), *_unlike_sweep(checked, self.sweep), *reported.warnings),
            **checked.facts(),
        )


def _fresh_folder(folder: Path) -> Path:
    """Make an empty folder, without what an earlier attempt left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _reporting(work_dir: Path, content: TrainerRequest) -> Callable[[], None]:
    """Return a function that reports the newest step and loss."""

    def report() -> None:
        newest = newest_line(content.output)
        step = min(newest.step, content.steps) if newest else 0
        write_progress(
            work_dir,
            Progress(phase="training", step=step, total=content.steps, loss=newest.loss if newest else None),
        )

    return report


def _unlike_sweep(checked: CheckedAdapter, sweep: RecipeSweep) -> list[str]:
    """Return a warning where the adapter's form is not the one that the sweep requests."""
    lora, found = sweep.training.lora, checked.facts()
    requested = ((lora.r,), (float(lora.alpha),), False, tuple(sorted(lora.target_modules)))
    names = ("ranks", "alphas", "use_rslora", "target_modules")
    differing = [name for name, value in zip(names, requested, strict=True) if found[name] != value]
    if not differing:
        return []
    shown = ", ".join(f"{name} {found[name]}" for name in differing)
    return [f"The trained adapter differs from training.lora of the sweep: it has {shown}."]
