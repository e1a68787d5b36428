"""The command: let the trainer service inspect the sweep, add its requirements, show both, and leave no files."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from surogate_bench.contract import LOG_FILE, Service
from surogate_bench.errors import ConfigError, ExitCode, StoreAwayError, StoreRefusedError
from surogate_bench.machine.hardware import describe_machine
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.inspection import Inspection
from surogate_bench.stages.requests import InspectRequest
from surogate_bench.store.errors import as_bad_input
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench.user_paths import expand_home, require_current_folder, require_folder, unwritable
from surogate_bench_orchestrator.cli.commands.inspection.estimates import (
    DiskNeeds,
    RecipeNeeds,
    disk_needs,
    recipe_needs,
)
from surogate_bench_orchestrator.cli.commands.inspection.page import show_inspection
from surogate_bench_orchestrator.cli.commands.inspection.speeds import Here, measured_speeds
from surogate_bench_orchestrator.cli.commands.single_task import run_task
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task, task_name
from surogate_bench_orchestrator.runtimes.local.machine import allot, detect_machine

_TIMEOUT_S = 4 * 3600.0
"""Enough to download a large model and its data set, as for the prepare stage."""
_LOG_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found about a sweep."""

    inspection: Inspection
    recipes: tuple[RecipeNeeds, ...]
    disk: DiskNeeds

    def as_json(self) -> dict[str, object]:
        """Return everything but the model's configuration, which the user has."""
        return {
            **self.inspection.model_dump(mode="json", exclude={"configuration"}),
            "recipes": [asdict(each) for each in self.recipes],
            "disk": asdict(self.disk),
        }


def inspect_sweep(sweep: RecipeSweep, location: str, state_dir: Path, consoles: Consoles) -> Findings | ExitCode:
    """Inspect a sweep in a process of the trainer service, whose files are removed.

    Args:
        sweep: The sweep.
        location: The store, which is not changed.
        state_dir: Where a run would put its scratch files; they are put next to it if it does not exist.
        consoles: Output streams.

    Returns:
        What was found; the exit code if model or data cannot be used, or the service failed, which is shown.

    Raises:
        ConfigError: the store or the folder cannot be used.
        Interrupted: a signal requested a stop.
    """
    store = open_store(location, create=False)
    with _scratch(state_dir) as scratch:
        task = _task(sweep, store, scratch / "inspection.json", attempts=sweep.max_attempts)
        observation = run_task(task, scratch, consoles.messages)
        if observation.phase is not Phase.SUCCEEDED:
            return _failed(observation, scratch / task.name / LOG_FILE, consoles)
        inspection = Inspection.model_validate_json((scratch / "inspection.json").read_bytes())
    machine = detect_machine()
    allotment = allot(machine, trainers=len(sweep.trained) * len(sweep.seeds), gpus=sweep.training.gpus)
    here = Here(hardware=describe_machine(machine.gpus[0].name if machine.gpus else None), allotment=allotment)
    try:
        speeds = measured_speeds(store, sweep, inspection.prepared, here)
    except (StoreAwayError, StoreRefusedError) as error:
        raise as_bad_input(error, store.url) from error
    return Findings(
        inspection=inspection,
        recipes=recipe_needs(sweep, inspection, speeds),
        disk=disk_needs(sweep, inspection, side_by_side=allotment.side_by_side),
    )


def show(findings: Findings, sweep: RecipeSweep, consoles: Consoles) -> None:
    """Print what was found."""
    show_inspection(findings.inspection, sweep, findings.recipes, findings.disk, consoles.output)


def show_as_json(findings: Findings, summary: dict[str, object], consoles: Consoles) -> None:
    """Print what was found for programs."""
    consoles.output.print_json(json.dumps(summary | findings.as_json(), default=str))


@contextmanager
def _scratch(state_dir: Path) -> Iterator[Path]:
    """Make a folder on the disk of the state folder, which need not exist, and remove it at the end."""
    state = require_current_folder() / expand_home(str(state_dir), field="state-dir")
    require_folder(state, field="state-dir")
    present = next(each for each in (state, *state.parents) if each.exists())
    try:
        folder = tempfile.TemporaryDirectory(prefix=".surogate-bench-validate-", dir=present)
    except OSError as error:
        raise unwritable(state, f"cannot be written: {error.strerror}", field="state-dir") from error
    with folder as name:
        yield Path(name)


def _task(sweep: RecipeSweep, store: ObjectStore, output: Path, *, attempts: int) -> Task:
    return Task(
        name=task_name("inspect", sweep.name, identity=str(output)),
        service=Service.TRAINER,
        request=InspectRequest(sweep=sweep, store=store.url, output=output),
        slots=0,
        max_attempts=attempts,
        timeout_s=_TIMEOUT_S,
        output=output.name,  # not in the store; a task without output would be a server
    )


def _failed(observation: Observation, log: Path, consoles: Consoles) -> ExitCode:
    """Show why, with the end of the log unless the cause is the user's input, because the log is removed."""
    print_line(consoles.messages, f"Error: {observation.message}")
    if observation.reason == ConfigError.__name__:
        return ExitCode.BAD_INPUT
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for line in lines[-_LOG_LINES:]:
        print_line(consoles.messages, f"| {line}")
    return ExitCode.FAILED
