"""The command: gather, diagnose, show."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from surogate_bench.errors import ExitCode
from surogate_bench.recipes import RECIPES
from surogate_bench.recipes.engines import AUTO
from surogate_bench.store.location import parse_location
from surogate_bench.user_paths import expand_home
from surogate_bench_orchestrator.cli.commands.doctor.diagnosis import Diagnosis, diagnose
from surogate_bench_orchestrator.cli.commands.doctor.engine_check import check_engines
from surogate_bench_orchestrator.cli.commands.doctor.facts import Facts, gather_facts
from surogate_bench_orchestrator.cli.commands.doctor.sweep_findings import sweep_findings
from surogate_bench_orchestrator.cli.options import OutputFormat
from surogate_bench_orchestrator.cli.sweep_file import read_sweep
from surogate_bench_orchestrator.cli.targets.local.sweep import MIN_FREE_BYTES
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """Options of the command."""

    sweep_file: Path | None
    """A sweep that is to run; the built-in recipes if None."""
    store: str
    state_dir: Path
    output: OutputFormat


def run_doctor(options: DoctorOptions, consoles: Consoles) -> int:
    """Show what this machine has, and return the exit code: 0 if a sweep can run, otherwise 1.

    Raises:
        ConfigError: the sweep file cannot be used.
        Interrupted: a signal requested a stop.
    """
    folders = _folders(options)
    sweep = None if options.sweep_file is None else read_sweep(options.sweep_file)
    print_line(consoles.messages, "comparing engines with their formulas (on a GPU kernels are compiled first) …")
    engines = check_engines()
    facts = gather_facts(folders, engines)
    device = engines.report.device if engines.report else None
    diagnosis = diagnose(
        facts,
        RECIPES if sweep is None else sweep.recipes,
        min_free_bytes=MIN_FREE_BYTES,
        engine=AUTO if sweep is None else sweep.engine,
        more=() if sweep is None else tuple(sweep_findings(sweep, device, facts.hub)),
    )
    if options.output is OutputFormat.JSON:
        consoles.output.print_json(json.dumps(_as_json(facts, diagnosis)))
    else:
        _show(diagnosis, consoles)
    return ExitCode.OK if diagnosis.can_run else ExitCode.FAILED


def _folders(options: DoctorOptions) -> dict[str, Path]:
    """Return the local folders that a sweep writes, by option."""
    store = parse_location(options.store)
    folders = {"state-dir": expand_home(str(options.state_dir), field="state-dir")}
    return folders | ({"store": store} if isinstance(store, Path) else {})


def _as_json(facts: Facts, diagnosis: Diagnosis) -> dict[str, object]:
    report = facts.engines.report
    return {
        "can_run": diagnosis.can_run,
        "machine": facts.hardware.model_dump() | asdict(facts.machine) | {"available_bytes": facts.available_bytes},
        "device": report.device.model_dump() if report else None,
        "versions": dict(facts.versions),
        "free_disk_bytes": dict(facts.free_disk),
        "hub": asdict(facts.hub),
        "findings": [asdict(finding) for finding in diagnosis.findings],
        "recipes": [asdict(recipe) for recipe in diagnosis.recipes],
        "checks": report.model_dump(mode="json")["checks"] if report else [],
    }


def _show(diagnosis: Diagnosis, consoles: Consoles) -> None:
    findings = _table("", "subject", "finding")
    for finding in diagnosis.findings:
        text = f"{finding.text}. {finding.remedy}" if finding.remedy else finding.text
        findings.add_row(finding.level.value, finding.subject, text)
    recipes = _table("recipe", "engine here", "", "products and the oracle's")
    for recipe in diagnosis.recipes:
        recipes.add_row(recipe.recipe, recipe.engine or "cannot run", recipe.note, recipe.codes)
    consoles.output.print(findings)
    consoles.output.print(recipes)
    result = "A sweep can run here." if diagnosis.can_run else "No sweep can run here: see the problems above."
    print_line(consoles.output, result)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table
