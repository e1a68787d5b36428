"""The prepare stage: checks model and data, and publishes the data splits."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from surogate_bench.contract import DATA_FOLDER, MODEL_FOLDER, split_file, task_file
from surogate_bench.files import sha256_of
from surogate_bench.hub_environment import check_hub_environment
from surogate_bench.local_inputs import INPUTS, digest_inputs
from surogate_bench.model_source import ModelLocation, locate_model
from surogate_bench.progress import Activity, Progress, write_progress
from surogate_bench.requests import PrepareRequest
from surogate_bench.results import PrepareResult, SplitInfo
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages import new_manifest, publish_stage, read_manifest
from surogate_bench.store import ObjectStore, open_store
from surogate_bench_trainer.data.encoding import special_tokens_of
from surogate_bench_trainer.data.records import PreparedRecord, write_records
from surogate_bench_trainer.data.rendering import is_templated, render
from surogate_bench_trainer.prepare.checks import (
    PreparedSplits,
    check_answers,
    check_lengths,
    check_shots,
    check_template_arguments,
    check_weights,
    header_warnings,
)
from surogate_bench_trainer.prepare.config_checks import has_full_attention
from surogate_bench_trainer.prepare.disk import (
    NEEDED_FOR_MODEL_MIB,
    NEEDED_MIB,
    check_disk_space,
    translate_disk_errors,
)
from surogate_bench_trainer.prepare.model import convert_smollm2, find_smollm2, is_converted
from surogate_bench_trainer.prepare.model_checks import check_checkpoint, load_config_and_tokenizer
from surogate_bench_trainer.prepare.repetitions import repetition_warnings
from surogate_bench_trainer.prepare.schedule import check_schedule
from surogate_bench_trainer.prepare.sources import load_splits
from surogate_bench_trainer.prepare.splitting import scored_records
from surogate_bench_trainer.prepare.task_data import check_task_prompts, task_records
from surogate_bench_trainer.prepare.tokenizer import check_vocabulary

_log = logging.getLogger(__name__)


def prepare_stage(request: PrepareRequest, work_dir: Path) -> None:
    """Check model and data, and publish the data splits and, if it was converted, the model.

    Cheap checks come first. A stage that is already complete is not repeated.

    Raises:
        ConfigError: the sweep, its model or its data cannot be used.
        TransientError: the hub or the store is unavailable.
    """
    store = open_store(request.store)
    prefix = request.layout.prepare
    if read_manifest(store, prefix) is not None:
        return
    sweep = request.sweep
    _check_environment(sweep, store, work_dir)
    write_progress(work_dir, Progress(phase=Activity.READING_DATA))
    here = [name for name in INPUTS if not (request.in_images and name == "trainers")]
    inputs = digest_inputs(sweep, here)  # before reading, so that a later change is detected
    splits = load_splits(sweep.data, needs_test="data" not in sweep.evaluation.keep_from_task)
    test = scored_records(splits)
    if "data" not in sweep.evaluation.keep_from_task:
        check_answers(test)
    check_weights(splits, sweep)
    tasks = task_records(sweep)
    warnings = repetition_warnings(splits)
    outputs = work_dir / "outputs"
    with translate_disk_errors(work_dir):
        location = _locate_or_convert(request, store, work_dir)
        write_progress(work_dir, Progress(phase=Activity.CHECKING))
        config, tokenizer = load_config_and_tokenizer(location, sweep)
        prepared: dict[str, Sequence[PreparedRecord]] = {
            name: render(splits[name], tokenizer, sweep.data, split=name) for name in ("train", "validation")
        }
        if test:
            prepared["test"] = test
        check_shots(prepared["train"], sweep)
        check_template_arguments(prepared["train"], sweep)
        lengths, tokens = check_lengths(prepared, tokenizer, sweep)
        tokens |= check_task_prompts(tasks, tokenizer, sweep)
        warnings += header_warnings(tokenizer, sweep)
        warnings += check_vocabulary(tokenizer, config.vocab_size, tokens)
        warnings += check_schedule(lengths, sweep)
        warnings += check_checkpoint(location, sweep, config)
        data = _written(prepared, outputs / DATA_FOLDER, split_file)
        questions = _written(tasks, outputs / DATA_FOLDER, task_file)
    commit = Path(location.name_or_path).name if sweep.model.hub else None
    result = PrepareResult(
        data=data,
        model_source=f"{sweep.model.label}@{commit}" if commit else sweep.model.label,
        model_in_store=is_converted(sweep.model),
        model_commit=commit,
        inputs=inputs,
        warnings=tuple(warnings),
        special_tokens=special_tokens_of(tokenizer),
        full_attention=has_full_attention(config),
        chat_template=is_templated(prepared["train"]),
        tasks=questions,
    )
    for warning in result.warnings:
        _log.warning("%s", warning)
    write_progress(work_dir, Progress(phase=Activity.UPLOADING))
    publish_stage(store, prefix, outputs, new_manifest(request, result))
    records = {name: info.records for name, info in data.items()}
    _log.info("the data has been checked and stored", extra={"records": records, "model": result.model_source})


def _check_environment(sweep: RecipeSweep, store: ObjectStore, work_dir: Path) -> None:
    check_hub_environment(sweep)
    converted = is_converted(sweep.model)
    check_disk_space(store, work_dir, needed_mib=NEEDED_FOR_MODEL_MIB if converted else NEEDED_MIB)
    if converted:
        find_smollm2()


def _locate_or_convert(request: PrepareRequest, store: ObjectStore, work_dir: Path) -> ModelLocation:
    if not is_converted(request.sweep.model):
        return locate_model(request.sweep.model, store=store, layout=request.layout, cache=work_dir / "model")
    write_progress(work_dir, Progress(phase=Activity.CONVERTING_MODEL))
    folder = work_dir / "outputs" / MODEL_FOLDER
    convert_smollm2(folder)
    return ModelLocation(str(folder))


def _written(records_of: PreparedSplits, folder: Path, file_of: Callable[[str], str]) -> dict[str, SplitInfo]:
    """Write the records of each split or task to a file of its own."""
    written = {}
    for name, records in records_of.items():
        path = folder / file_of(name)
        write_records(path, records)
        written[name] = SplitInfo(records=len(records), sha256=sha256_of(path))
    return written
