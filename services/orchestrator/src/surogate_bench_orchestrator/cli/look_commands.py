"""Commands that look at a sweep, or at what could be run, and start nothing."""

import json
from pathlib import Path

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.recipes import RECIPES, Recipe
from surogate_bench.recipes.engines import required_capability
from surogate_bench_orchestrator.adapters.local.capabilities import capability
from surogate_bench_orchestrator.adapters.local.machine import Machine, detect_machine
from surogate_bench_orchestrator.cli.live import render_view
from surogate_bench_orchestrator.cli.run_command import as_json, publish_report, show_report
from surogate_bench_orchestrator.cli.session import Session, read_sweep
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.locks import sweep_lock
from surogate_bench_orchestrator.sweep.rows import service_rows, sweep_view


def show_status(session: Session, *, json_wanted: bool, output: Console) -> None:
    """Show how a sweep stands."""
    snapshot = session.look()
    holder = sweep_lock(session.store, session.plan.layout, SystemClock()).holder()
    if json_wanted:
        services = [row.as_json() for row in service_rows(snapshot)]
        output.print_json(
            json.dumps(as_json(session, snapshot) | {"services": services, "held_by": holder and str(holder)})
        )
        return
    output.print(render_view(sweep_view(snapshot)))
    output.print(Text(f"Worked on by {holder}" if holder else "Nobody is working on it."), soft_wrap=True)


def make_report(session: Session, *, folder: Path | None, output: Console) -> None:
    """Write the report of what is finished so far, into the store and, where asked for, into a folder.

    Raises:
        PermanentError: nothing is finished.
        ConfigError: the store cannot be reached, or the folder cannot be written.
    """
    snapshot = session.look()
    if not any(run.evaluate.name in snapshot.manifests for run in session.plan.runs):
        raise PermanentError(f"no run of sweep {session.sweep.name} has finished in {session.store.url}")
    summary = publish_report(session, snapshot)
    show_report(session, summary, output)
    if folder is not None:
        try:
            session.store.fetch_tree(session.plan.layout.report, folder)
        except OSError as error:
            raise ConfigError(
                f"cannot be written: {error.strerror}",
                field="output",
                value=str(folder),
                remedy="Choose a folder you may write.",
            ) from error
        output.print(Text(f"Copied to {folder}"), soft_wrap=True)


def show_recipes(*, json_wanted: bool, output: Console) -> None:
    """Show what each recipe is and how this machine runs it."""
    machine = detect_machine()
    if json_wanted:
        output.print_json(json.dumps([_recipe_json(recipe, machine) for recipe in RECIPES]))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("recipe", "title", "weights stored as", "products in", "engine here", ""):
        table.add_column(name)
    for recipe in RECIPES:
        how = capability(recipe, machine)
        storage, compute = recipe.weight_storage.value, recipe.compute.value
        table.add_row(recipe.name, recipe.title, storage, compute, how.engine or "cannot run", how.note)
    output.print(table)


def check_sweep(sweep_file: Path, output: Console) -> None:
    """Check a sweep file; silence would be ambiguous.

    Raises:
        ConfigError: it cannot be used as it is.
    """
    sweep = read_sweep(sweep_file)
    runs = len(sweep.recipes) * len(sweep.seeds)
    base = " and the base model" if sweep.evaluation.evaluate_base else ""
    verdict = f"{sweep_file} is valid: sweep {sweep.name} ({sweep.spec_hash}), {runs} runs{base}"
    output.print(Text(verdict), soft_wrap=True)


def render_tasks(session: Session, *, slots: int | None, json_wanted: bool, output: Console) -> None:
    """Show what would be started; in YAML the sweep, which every request holds, is written once."""
    runtime = session.local_runtime(slots)
    tasks = [dict(runtime.render(task)) for task in session.plan.tasks]
    if json_wanted:
        output.print_json(json.dumps(tasks))
        return
    sweep = tasks[0]["request"]["sweep"]
    shared = [task | {"request": task["request"] | {"sweep": sweep}} for task in tasks]
    output.out(yaml.safe_dump(shared, sort_keys=False, allow_unicode=True, width=120), highlight=False, end="")


def _recipe_json(recipe: Recipe, machine: Machine) -> dict[str, object]:
    how = capability(recipe, machine)
    return {
        "name": recipe.name,
        "title": recipe.title,
        "weight_storage": recipe.weight_storage.value,
        "compute": recipe.compute.value,
        "min_compute_capability": required_capability(recipe),
        "can_run": how.engine is not None,
        "engine": how.engine,
        "note": how.note,
    }
