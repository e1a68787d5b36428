"""``surogate-bench export-base``: write the base weights of a recipe as a checkpoint for other servers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from surogate_bench.contract import EXPORT_FILE, LOG_FILE, Service
from surogate_bench.errors import ConfigError, ExitCode
from surogate_bench.specs import RecipeSweep, load_sweep, with_seeds
from surogate_bench.stages.exports import ExportFormat, ExportRecord, check_export
from surogate_bench.stages.model_source import require_model_folder
from surogate_bench.stages.requests import ExportRequest
from surogate_bench.store.object_store import open_store
from surogate_bench.user_paths import expand_home, require_current_folder, require_folder
from surogate_bench_orchestrator.cli.commands.single_task import run_task
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line
from surogate_bench_orchestrator.domain.tasks import Phase, Task, task_name
from surogate_bench_orchestrator.report.text.formats import size

_TIMEOUT_S = 86400.0
_MAX_ATTEMPTS = 3
_SHOWN_LAYERS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of the export."""

    recipe: str
    export_format: ExportFormat
    output: Path | None
    """Folder to write; named after sweep, recipe and format if None."""
    store: str
    """Where the sweep's results are: a model of the hub is exported at the commit that was prepared."""
    state_dir: Path
    seeds: Sequence[int] | None = None
    """Seeds in place of the file's."""
    as_json: bool = False


def export_base(sweep_file: Path, options: ExportOptions, consoles: Consoles) -> int:
    """Export the base weights of a recipe.

    Args:
        sweep_file: The sweep's YAML.
        options: Options of the export.
        consoles: Output streams.

    Returns:
        The exit code: 0 when the checkpoint is written, 2 when sweep, model or folder cannot be used, else 1.

    Raises:
        ConfigError: found before the trainer service is started.
        Interrupted: a signal requested a stop; nothing is written.
    """
    sweep = _read(sweep_file, options.seeds or ())
    folder = _absolute(options.output or Path(f"{sweep.name}-{options.recipe}-{options.export_format}"), "output")
    check_export(sweep, options.recipe, options.export_format, folder)
    task = _task(sweep, options, folder)
    state = _absolute(options.state_dir, "state-dir") / "exports"
    require_folder(state, field="state-dir")
    observation = run_task(task, state, consoles.messages, if_active=_in_use(folder))
    if observation.phase is not Phase.SUCCEEDED:
        print_line(consoles.messages, f"Error: {observation.message}")
        print_line(consoles.messages, f"Log: {state / task.name / LOG_FILE}")
        return ExitCode.BAD_INPUT if observation.reason == ConfigError.__name__ else ExitCode.FAILED
    record = ExportRecord.model_validate_json((folder / EXPORT_FILE).read_bytes())
    if options.as_json:
        consoles.output.print_json(json.dumps({"output": str(folder)} | record.model_dump(mode="json")))
    else:
        _show(record, folder, consoles.output)
    return ExitCode.OK


def _read(sweep_file: Path, seeds: Sequence[int]) -> RecipeSweep:
    sweep = with_seeds(load_sweep(sweep_file), seeds)
    if sweep.model.path is not None:
        require_model_folder(sweep.model.path)
    return sweep


def _absolute(path: Path, field: str) -> Path:
    return require_current_folder() / expand_home(str(path), field=field)


def _task(sweep: RecipeSweep, options: ExportOptions, folder: Path) -> Task:
    return Task(
        name=task_name("export", sweep.name, options.recipe, options.export_format, identity=str(folder)),
        service=Service.TRAINER,
        request=ExportRequest(
            sweep=sweep,
            store=open_store(options.store, create=False).url,
            recipe=options.recipe,
            output=folder,
            format=options.export_format,
        ),
        slots=1,
        max_attempts=_MAX_ATTEMPTS,
        timeout_s=_TIMEOUT_S,
        output=EXPORT_FILE,  # not in the store; a task without output would be a server
    )


def _in_use(folder: Path) -> ConfigError:
    return ConfigError(
        "another process is exporting to it",
        field="output",
        value=str(folder),
        remedy="Wait for it, or choose another folder.",
    )


def _show(record: ExportRecord, folder: Path, output: Console) -> None:
    lines = [
        f"Wrote {folder}: {record.model} as recipe {record.recipe} stores it, "
        f"{record.quantization or 'in bf16'}, {size(record.weight_bytes)}",
        _equality(record),
        *(f"Note: {note}" for note in record.notes),
    ]
    for line in lines:
        print_line(output, line)


def _equality(record: ExportRecord) -> str:
    differing = record.relative_errors
    if not differing:
        return "All weights equal those of training bit for bit."
    worst = sorted(differing, key=lambda name: -differing[name])[:_SHOWN_LAYERS]
    return (
        f"{record.layers - len(differing)} of {record.layers} layers equal those of training. {len(differing)} had to "
        "be rounded once more, since vLLM keeps one scale for projections that it multiplies as one; largest relative "
        f"differences: {', '.join(f'{name} {differing[name]:.1%}' for name in worst)}. --format bf16 keeps all values."
    )
