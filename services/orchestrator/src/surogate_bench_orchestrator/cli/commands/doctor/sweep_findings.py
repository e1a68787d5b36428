"""Requirements of a sweep that this machine may lack: the hub, programs of foreign trainers, and GPU memory."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from surogate_bench.contract import MODEL_CONFIG_FILE
from surogate_bench.errors import ConfigError
from surogate_bench.inputs.hub_environment import check_hub_environment, data_on_hub
from surogate_bench.inputs.trainer_commands import command_files
from surogate_bench.machine.checks import Device
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.model_source import local_model_folder
from surogate_bench_orchestrator.cli.commands.doctor.diagnosis import Finding, Level
from surogate_bench_orchestrator.cli.commands.doctor.facts import Hub
from surogate_bench_orchestrator.cli.commands.doctor.memory import ModelShape, estimate_training_bytes
from surogate_bench_orchestrator.report.text.formats import size

_SUBJECT = "GPU memory (estimate)"


def sweep_findings(sweep: RecipeSweep, device: Device | None, hub: Hub) -> Iterator[Finding]:
    """Yield the findings about a sweep.

    Args:
        sweep: The sweep.
        device: What the trainer found.
        hub: Whether the hub can be reached.
    """
    yield from _hub(sweep, hub)
    yield from _trainers(sweep)
    if device is not None and device.is_gpu and device.memory_bytes is not None:
        yield _memory(sweep, device.memory_bytes)


def _hub(sweep: RecipeSweep, hub: Hub) -> Iterator[Finding]:
    adapters = (each.hub for each in sweep.adapters)
    needed = next(filter(None, (sweep.model.hub, *data_on_hub(sweep).values(), *adapters)), None)
    if needed is None:
        return
    try:
        check_hub_environment(sweep)
    except ConfigError as error:
        problem = f"{error.field} {error.problem}"
        yield Finding(subject="hub", level=Level.PROBLEM, text=problem, remedy=error.remedy)
        return
    if not hub.reachable:
        yield Finding(
            subject="hub",
            level=Level.NOTE,
            text=f"the sweep needs {needed} from the hub, which must be in the cache",
            remedy=f"Fill the cache first (`hf download {needed}`), or give local folders.",
        )


def _trainers(sweep: RecipeSweep) -> Iterator[Finding]:
    for trainer in sweep.trainers:
        try:
            command_files(trainer)
        except ConfigError as error:
            text = f"{error.field}: {error.problem} ({error.value})"
            yield Finding(subject=f"trainer {trainer.name}", level=Level.PROBLEM, text=text, remedy=error.remedy)


def _memory(sweep: RecipeSweep, available: int) -> Finding:
    shape = _shape(sweep)
    if shape is None:
        text = "none: the model's configuration is on the hub, or not that of a dense transformer"
        return Finding(subject=_SUBJECT, level=Level.NOTE, text=text)
    training = sweep.training
    needed = {recipe.name: estimate_training_bytes(shape, recipe, training) for recipe in sweep.recipes}
    most = max(needed, key=lambda name: needed[name])
    text = f"{most} takes about {size(needed[most])} of {size(available)}"
    if needed[most] <= available:
        return Finding(subject=_SUBJECT, level=Level.OK, text=text)
    return Finding(
        subject=_SUBJECT,
        level=Level.PROBLEM,
        text=f"{text}, with micro-batches of {training.micro_batch_size} rows of {training.max_length} tokens",
        remedy="Lower training.micro_batch_size (and raise training.gradient_accumulation_steps), or lower "
        "training.max_length.",
    )


def _shape(sweep: RecipeSweep) -> ModelShape | None:
    folder = local_model_folder(sweep.model)
    return None if folder is None else ModelShape.of(_config(folder))


def _config(folder: Path) -> Mapping[str, object]:
    try:
        config = json.loads((folder / MODEL_CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
