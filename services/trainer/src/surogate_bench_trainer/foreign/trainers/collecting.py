"""The output of a foreign trainer: checked, measured, and written as it is published."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from surogate_bench.contract import ADAPTER_FOLDER, METRICS_FILE
from surogate_bench.errors import ConfigError, ForeignTrainerError
from surogate_bench.inputs.adapter_files import local_adapter_files
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.results import ForeignTrainResult
from surogate_bench.specs.lora import LoraSpec
from surogate_bench_trainer.foreign.adapters.checked import CheckedAdapter, check_adapter, last_part, write_adapter
from surogate_bench_trainer.foreign.adapters.sources import copy_adapter, limits_of
from surogate_bench_trainer.foreign.trainers.attempt import Attempt, fresh_folder
from surogate_bench_trainer.foreign.trainers.command import Ended
from surogate_bench_trainer.foreign.trainers.reported import Reported, read_reported
from surogate_bench_trainer.model.coverage import short_name
from surogate_bench_trainer.training.served_validation import served_validation_loss
from surogate_bench_trainer.training.setup import training_device, validation_batches


@dataclass(frozen=True, slots=True)
class _Taken:
    """The trainer's adapter, after it was checked and written."""

    digest: str
    checked: CheckedAdapter
    unlike: Sequence[str]
    """Warnings about what the sweep does not request."""


def collect(attempt: Attempt, ended: Ended | None) -> ForeignTrainResult:
    """Check the trainer's output, and write what is published into :attr:`Attempt.outputs`.

    Args:
        attempt: The attempt.
        ended: How the command ended; None where it ran in a container of its own.

    Raises:
        ForeignTrainerError: it wrote no adapter that vLLM serves.
    """
    write_progress(attempt.work_dir, Progress(phase=Activity.CHECKING))
    try:
        taken = _take_over(attempt)
    except ConfigError as error:
        message = f"the command left no usable adapter: {error}"
        raise ForeignTrainerError(message, ended.last_lines if ended else None) from error
    reported = read_reported(attempt.left)
    if reported.lines:
        (attempt.outputs / METRICS_FILE).write_bytes(reported.content())
    write_progress(attempt.work_dir, Progress(phase=Activity.VALIDATING_AS_SERVED))
    return _result(attempt, ended, reported, taken, _served_loss(attempt))


def _take_over(attempt: Attempt) -> _Taken:
    """Copy, check and write the adapter.

    Raises:
        ConfigError: it is missing, or vLLM does not serve it with the sweep's model.
    """
    trainer, folder = attempt.trainer, attempt.left / ADAPTER_FOLDER
    if attempt.left.is_symlink() or folder.is_symlink() or not folder.is_dir():
        raise ConfigError(
            f"there is no folder {ADAPTER_FOLDER} in the output folder",
            field=trainer.field,
            value=trainer.label,
            remedy=f"Save the adapter there with PEFT: save_pretrained(output + '/{ADAPTER_FOLDER}').",
        )
    source = fresh_folder(attempt.work_dir / "source")
    base, max_rank = attempt.base, attempt.sweep.serving.max_lora_rank
    copy_adapter(trainer, local_adapter_files(trainer, folder), source, limits_of(base.largest_file(max_rank)))
    checked = check_adapter(source, base, max_rank=max_rank, field=trainer.field)
    target = fresh_folder(attempt.outputs) / ADAPTER_FOLDER
    digest = write_adapter(target, checked, base, base_model=attempt.sweep.model.label)
    lora = attempt.sweep.training.lora
    return _Taken(digest, checked, _unlike_sweep(checked, lora, base.targets(lora)))


def _served_loss(attempt: Attempt) -> float | None:
    device = training_device()
    validation = validation_batches(
        attempt.records("validation"),
        attempt.tokenizer,
        attempt.sweep,
        device=device,
        special_tokens=attempt.special_tokens,
    )
    return served_validation_loss(attempt.location, attempt.outputs / ADAPTER_FOLDER, validation, device)


def _result(
    attempt: Attempt, ended: Ended | None, reported: Reported, taken: _Taken, loss: float | None
) -> ForeignTrainResult:
    trainer, request, sweep = attempt.trainer, attempt.request, attempt.sweep
    models = (sweep.model.label, attempt.location.name_or_path, str(attempt.model_copy))
    warnings = taken.checked.warnings(sweep, {last_part(name) for name in models})
    return ForeignTrainResult(
        command=trainer.command,
        image=trainer.image if request.in_container else None,
        seconds=ended.seconds if ended else None,
        peak_memory_bytes=ended.peak_memory_bytes if ended and not torch.cuda.is_available() else None,
        side_by_side=request.side_by_side,
        threads=request.threads,
        steps=reported.steps,
        tokens=reported.tokens,
        train_seconds=reported.seconds,
        final_train_loss=reported.final_train_loss,
        validation=reported.validation,
        served_validation_loss=loss,
        adapter_sha256=taken.digest,
        trained_under=trainer.trained_under,
        warnings=(*warnings, *taken.unlike, *reported.warnings),
        **taken.checked.facts(),
    )


def _unlike_sweep(checked: CheckedAdapter, lora: LoraSpec, layers: Collection[str]) -> list[str]:
    """Return a warning where the adapter's form is not the one that the sweep requests on its layers."""
    found: Mapping[str, object] = checked.facts()
    requested = {
        "ranks": tuple(sorted({lora.rank_of(layer) for layer in layers})),
        "alphas": tuple(sorted({lora.alpha_of(layer) for layer in layers})),
        "use_rslora": lora.use_rslora,
        "target_modules": tuple(sorted(set(map(short_name, layers)))),
    }
    differing = [name for name, value in requested.items() if found[name] != value]
    if not differing:
        return []
    shown = ", ".join(f"{name} {found[name]}" for name in differing)
    return [f"The trained adapter differs from training.lora of the sweep: it has {shown}."]
