"""The export stage."""

import logging
from pathlib import Path

from surogate_bench.contract import EXPORT_FILE
from surogate_bench.machine.hardware import package_versions
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.recipes import Recipe
from surogate_bench.stages.exports import ExportRecord, check_export
from surogate_bench.stages.requests import ExportRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_quantization.export import CheckpointFormat, checkpoint_format
from surogate_bench_trainer.export.checkpoint import (
    WrittenWeights,
    copy_other_files,
    write_config,
    write_json,
    write_weights,
)
from surogate_bench_trainer.export.folder import complete_folder
from surogate_bench_trainer.export.layers import check_vllm_can_load, stored_layers, unquantized_modules
from surogate_bench_trainer.export.room import expected_bytes, require_room
from surogate_bench_trainer.export.source import Source, find_source, load_stored
from surogate_bench_trainer.training.setup import public_name

_log = logging.getLogger(__name__)


def export_stage(request: ExportRequest, work_dir: Path) -> None:
    """Write the base weights of a recipe as a checkpoint; the output folder appears when it is complete.

    Raises:
        ConfigError: recipe, model or output folder cannot be used, or the disk has too little room.
        TransientError: the hub or the store cannot be reached.
    """
    recipe = check_export(request.sweep, request.recipe, request.format, request.output)
    target = checkpoint_format(recipe, request.format)
    write_progress(work_dir, Progress(phase=Activity.CHECKING))
    source = find_source(request, open_store(request.store, create=False), work_dir / "model")
    require_room(request.output, expected_bytes(source.folder, recipe, request.format))
    write_progress(work_dir, Progress(phase=Activity.LOADING))
    model = load_stored(source, recipe)
    layers = stored_layers(model)
    check_vllm_can_load(model, layers, target)
    write_progress(work_dir, Progress(phase=Activity.WRITING))
    with complete_folder(request.output) as folder:
        written = write_weights(folder, model, layers, target)
        write_config(folder, source.folder, target.quantization_config(unquantized_modules(model, layers)))
        copy_other_files(folder, source.folder)
        record = _record(request, recipe, source, target, written)
        write_json(folder / EXPORT_FILE, record.model_dump(mode="json"))
    _log.info("the checkpoint is written", extra={"output": str(request.output), "bytes": record.weight_bytes})


def _record(
    request: ExportRequest, recipe: Recipe, source: Source, target: CheckpointFormat, written: WrittenWeights
) -> ExportRecord:
    return ExportRecord(
        sweep=request.sweep.name,
        spec_hash=request.sweep.spec_hash,
        model=public_name(request.sweep.model),
        model_commit=source.commit,
        recipe=recipe.name,
        weight_storage=recipe.weight_storage,
        quantization=target.label,
        layers=written.layers,
        weight_bytes=written.weight_bytes,
        relative_errors=written.relative_errors,
        notes=tuple(target.notes),
        versions=package_versions(),
    )
