"""All checks of model and data, the cheapest first, with what they found; nothing is published here."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surogate_bench.contract import DATA_FOLDER, MODEL_FOLDER, split_file, task_file
from surogate_bench.files import sha256_of
from surogate_bench.inputs.content import digests_of, model_files
from surogate_bench.inputs.hub_environment import check_hub_environment
from surogate_bench.layout import manifest_key
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.results import InputName, PrepareResult, SplitInfo
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.local_inputs import INPUTS, digest_inputs
from surogate_bench.stages.model_source import ModelLocation, locate_model
from surogate_bench.stages.requests import StageRequest
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_trainer.data.encoding import special_tokens_of
from surogate_bench_trainer.data.records import PreparedRecord, ScoredRecord, write_records
from surogate_bench_trainer.data.rendering import is_templated, render
from surogate_bench_trainer.prepare.base_model.checks import check_checkpoint, load_config_and_tokenizer
from surogate_bench_trainer.prepare.base_model.config_checks import has_full_attention
from surogate_bench_trainer.prepare.base_model.conversion import convert_smollm2, find_smollm2, is_converted
from surogate_bench_trainer.prepare.base_model.tokenizer import answer_ends, check_vocabulary, ending_warnings
from surogate_bench_trainer.prepare.dataset.checks import (
    PreparedSplits,
    SampleSizes,
    check_answers,
    check_lengths,
    check_shots,
    check_template_arguments,
    check_weights,
    header_warnings,
)
from surogate_bench_trainer.prepare.dataset.repetitions import repetition_warnings
from surogate_bench_trainer.prepare.dataset.sources import load_splits
from surogate_bench_trainer.prepare.dataset.splitting import Splits, scored_records
from surogate_bench_trainer.prepare.dataset.task_data import TaskRecords, check_task_prompts, task_records
from surogate_bench_trainer.prepare.disk import (
    NEEDED_FOR_MODEL_MIB,
    NEEDED_MIB,
    check_disk_space,
    translate_disk_errors,
)
from surogate_bench_trainer.prepare.schedule import check_schedule

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Model and data of a sweep, found to be usable."""

    result: PrepareResult
    outputs: Path
    """Folder of the files to publish: the data splits and, if it was converted, the model."""
    location: ModelLocation
    tokenizer: "PreTrainedTokenizerBase"
    splits: PreparedSplits
    tasks: TaskRecords
    sizes: SampleSizes
    """Sizes of the training samples."""


def check_inputs(
    request: StageRequest, store: ObjectStore, work_dir: Path, *, here: Iterable[InputName] = INPUTS
) -> Checked:
    """Check model and data, and write what is to be published to ``<work_dir>/outputs``.

    Args:
        request: Has the sweep.
        store: Where the sweep's results are, or will be.
        work_dir: Scratch folder.
        here: Local inputs that this process can read.

    Raises:
        ConfigError: the sweep, its model or its data cannot be used.
        TransientError: the hub or the store is unavailable.
    """
    sweep = request.sweep
    _check_environment(sweep, store, work_dir)
    write_progress(work_dir, Progress(phase=Activity.READING_DATA))
    inputs = digest_inputs(sweep, here)  # before reading, so that a later change is detected
    splits = load_splits(sweep.data, needs_test="data" not in sweep.evaluation.keep_from_task)
    test = scored_records(splits)
    if "data" not in sweep.evaluation.keep_from_task:
        check_answers(test, sweep.evaluation)
    check_weights(splits, sweep)
    tasks = task_records(sweep)
    outputs = work_dir / "outputs"
    with translate_disk_errors(work_dir):
        location = _locate_or_convert(request, store, work_dir)
        write_progress(work_dir, Progress(phase=Activity.CHECKING))
        config, tokenizer = load_config_and_tokenizer(location, sweep)
        prepared = _rendered(splits, test, tokenizer, sweep)
        sizes, warnings = _check_prepared(prepared, tasks, config, tokenizer, sweep)
        warnings += check_checkpoint(location, sweep, config)
        if is_converted(sweep.model):
            inputs["model"] = digests_of(model_files(Path(location.name_or_path)))
        data = _written(prepared, outputs / DATA_FOLDER, split_file)
        questions = _written(tasks, outputs / DATA_FOLDER, task_file)
    model, templated = Path(location.name_or_path), is_templated(prepared["train"])
    ends = answer_ends(tokenizer, model, config)
    commit = model.name if sweep.model.hub else None
    result = PrepareResult(
        data=data,
        model_source=f"{sweep.model.label}@{commit}" if commit else sweep.model.label,
        model_in_store=is_converted(sweep.model),
        model_commit=commit,
        inputs=inputs,
        warnings=(
            *repetition_warnings(splits),
            *ending_warnings(tokenizer, ends, is_templated=templated),
            *warnings,
        ),
        special_tokens=special_tokens_of(tokenizer),
        answer_ends=ends,
        full_attention=has_full_attention(config),
        chat_template=templated,
        tasks=questions,
    )
    return Checked(
        result=result,
        outputs=outputs,
        location=location,
        tokenizer=tokenizer,
        splits=prepared,
        tasks=tasks,
        sizes=sizes,
    )


def _check_environment(sweep: RecipeSweep, store: ObjectStore, work_dir: Path) -> None:
    check_hub_environment(sweep)
    converted = is_converted(sweep.model)
    check_disk_space(store, work_dir, needed_mib=NEEDED_FOR_MODEL_MIB if converted else NEEDED_MIB)
    if converted:
        find_smollm2()


def _locate_or_convert(request: StageRequest, store: ObjectStore, work_dir: Path) -> ModelLocation:
    if not is_converted(request.sweep.model) or store.exists(manifest_key(request.layout.prepare)):
        return locate_model(request.sweep.model, store=store, layout=request.layout, cache=work_dir / "model")
    write_progress(work_dir, Progress(phase=Activity.CONVERTING_MODEL))
    folder = work_dir / "outputs" / MODEL_FOLDER
    convert_smollm2(folder)
    return ModelLocation(str(folder))


def _rendered(
    splits: Splits, test: Sequence[ScoredRecord], tokenizer: "PreTrainedTokenizerBase", sweep: RecipeSweep
) -> PreparedSplits:
    prepared: dict[str, Sequence[PreparedRecord]] = {
        name: render(splits[name], tokenizer, sweep.data, split=name) for name in ("train", "validation")
    }
    return prepared | {"test": test} if test else prepared


def _check_prepared(
    prepared: PreparedSplits,
    tasks: TaskRecords,
    config: Any,  # noqa: ANN401 - untyped
    tokenizer: "PreTrainedTokenizerBase",
    sweep: RecipeSweep,
) -> tuple[SampleSizes, tuple[str, ...]]:
    """Check the samples, and return their sizes and warnings."""
    check_shots(prepared["train"], sweep)
    check_template_arguments(prepared["train"], sweep)
    sizes, tokens = check_lengths(prepared, tokenizer, sweep)
    tokens |= check_task_prompts(tasks, tokenizer, sweep)
    return sizes, (
        *header_warnings(tokenizer, sweep),
        *check_vocabulary(tokenizer, config.vocab_size, tokens),
        *check_schedule(sizes.tokens, sweep),
    )


def _written(records_of: PreparedSplits, folder: Path, file_of: Callable[[str], str]) -> dict[str, SplitInfo]:
    """Write the records of each split or task to a file of its own."""
    written = {}
    for name, records in records_of.items():
        path = folder / file_of(name)
        write_records(path, records)
        written[name] = SplitInfo(records=len(records), sha256=sha256_of(path))
    return written
