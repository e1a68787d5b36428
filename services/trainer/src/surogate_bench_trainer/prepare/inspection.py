"""An inspection: the checks of the prepare stage, and a description of what would be trained and scored."""

import json
import re
from pathlib import Path

from surogate_bench.contract import DATA_FOLDER, MODEL_CONFIG_FILE
from surogate_bench.files import write_atomically
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.results import PrepareResult
from surogate_bench.specs.lora import LoraSpec
from surogate_bench.specs.training import TrainingSpec
from surogate_bench.stages.inspection import Inspection, LengthBin, Lengths, SeedSchedule, TrainedTokens
from surogate_bench.stages.local_inputs import require_unchanged
from surogate_bench.stages.publication import read_result
from surogate_bench.stages.requests import InspectRequest
from surogate_bench.store.object_store import open_store, walk_files
from surogate_bench_trainer.data.schedule import schedule_batches
from surogate_bench_trainer.prepare.base_model.checkpoint_files import checkpoint_headers
from surogate_bench_trainer.prepare.checking import Checked, check_inputs
from surogate_bench_trainer.prepare.dataset.checks import SampleSizes
from surogate_bench_trainer.prepare.shown import shown_prompts, shown_samples

_MOST_BINS = 12
_MATRIX = 2
"""Dimensions of a linear layer's weight."""
_IN_BLOCK = re.compile(r"\.[0-9]+\.")
"""The number of a transformer block in the name of one of its layers."""
_STEPS = (1, 2, 5)
"""Leading digits of a bin's width."""


def inspect_stage(request: InspectRequest, work_dir: Path) -> None:
    """Check model and data as the prepare stage does, and write an :class:`Inspection`.

    Nothing is stored, except that models and data of the hub are downloaded into its cache.

    Raises:
        ConfigError: the sweep, its model or its data cannot be used, or differ from what was prepared earlier.
        TransientError: the hub or the store is unavailable.
    """
    store = open_store(request.store, create=False)
    prepared = read_result(store, request.layout.prepare, PrepareResult)
    if prepared is not None:
        require_unchanged(prepared, request.sweep)
    checked = check_inputs(request, store, work_dir)
    write_progress(work_dir, Progress(phase=Activity.DESCRIBING))
    write_atomically(request.output, describe(checked, request).model_dump_json().encode())


def describe(checked: Checked, request: InspectRequest) -> Inspection:
    """Describe what was found to be usable."""
    sweep, model = request.sweep, Path(checked.location.name_or_path)
    return Inspection(
        prepared=checked.result,
        configuration=json.loads((model / MODEL_CONFIG_FILE).read_bytes()),
        samples=shown_samples(checked, sweep),
        tasks=shown_prompts(checked, sweep),
        lengths=lengths_of(checked.sizes.tokens, limit=sweep.training.max_length),
        epoch=TrainedTokens(tokens=sum(checked.sizes.tokens), counted=sum(checked.sizes.counted)),
        schedules=tuple(schedule_of(checked.sizes, sweep.training, seed=seed) for seed in sweep.seeds),
        model_bytes=_size_of(model),
        data_bytes=_size_of(checked.outputs / DATA_FOLDER),
        lora_parameters=lora_parameters(model, sweep.training.lora),
    )


def schedule_of(sizes: SampleSizes, training: TrainingSpec, *, seed: int) -> SeedSchedule:
    """Return the length of the training with a seed, by the trainer's own schedule."""
    schedule = schedule_batches(sizes.tokens, training, seed=seed)
    tokens = counted = 0
    for row, uses in zip(schedule.rows, schedule.uses(), strict=True):
        tokens += uses * sum(sizes.tokens[index] for index in row)
        counted += uses * sum(sizes.counted[index] for index in row)
    return SeedSchedule(
        seed=seed,
        rows=len(schedule.rows),
        row_fill=sum(sizes.tokens) / (len(schedule.rows) * training.max_length),
        steps_per_epoch=schedule.steps_per_epoch,
        steps=schedule.total_steps,
        total=TrainedTokens(tokens=tokens, counted=counted),
    )


def lengths_of(tokens: list[int], *, limit: int) -> Lengths:
    """Summarize the lengths of samples; median and 95th percentile are those of a sample (nearest rank)."""
    ordered = sorted(tokens)
    return Lengths(
        samples=len(ordered),
        minimum=ordered[0],
        median=_quantile(ordered, 50),
        p95=_quantile(ordered, 95),
        maximum=ordered[-1],
        limit=limit,
        bins=_bins(ordered),
    )


def _quantile(ordered: list[int], percent: int) -> int:
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _bins(ordered: list[int]) -> tuple[LengthBin, ...]:
    """Return bins of equal width (1, 2 or 5 times a power of ten) from the shortest to the longest sample."""
    widths = (step * 10**power for power in range(10) for step in _STEPS)
    width = next(width for width in widths if ordered[-1] // width - ordered[0] // width < _MOST_BINS)
    counts = dict.fromkeys(range(ordered[0] // width, ordered[-1] // width + 1), 0)
    for length in ordered:
        counts[length // width] += 1
    return tuple(
        LengthBin(first=number * width, last=(number + 1) * width - 1, samples=count)
        for number, count in counts.items()
    )


def lora_parameters(model: Path, lora: LoraSpec) -> int:
    """Return the parameters of an adapter, by the names and shapes in the model's files."""
    shapes = {
        name.removesuffix(".weight"): tensor["shape"]
        for header in checkpoint_headers(model).values()
        for name, tensor in header.items()
    }
    return sum(
        lora.rank_of(name) * sum(shape)
        for name, shape in shapes.items()
        if len(shape) == _MATRIX and _IN_BLOCK.search(name) and lora.targets(name)
    )


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for _, path in walk_files(folder))
