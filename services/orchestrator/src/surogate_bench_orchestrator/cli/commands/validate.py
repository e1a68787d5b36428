"""``surogate-bench validate``: check a sweep file, and with ``--deep`` its model and data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surogate_bench.errors import ExitCode
from surogate_bench.specs import RecipeSweep, with_seeds
from surogate_bench_orchestrator.cli.sweep_file import read_sweep, require_trainers
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateOptions:
    """Options of the command."""

    store: str
    state_dir: Path
    seeds: Sequence[int] = ()
    deep: bool = False
    as_json: bool = False


def validate_sweep(sweep_file: Path, options: ValidateOptions, consoles: Consoles) -> int:
    """Check a sweep file, and print that it is valid; also show what would be trained, if requested.

    Returns:
        The exit code: 0, or where model and data are checked 2 if they cannot be used, and 1 if that failed.

    Raises:
        ConfigError: the file cannot be used as it is.
        Interrupted: a signal requested a stop.
    """
    sweep = with_seeds(read_sweep(sweep_file), options.seeds)
    require_trainers(sweep)
    summary: dict[str, object] = {"sweep": sweep.name, "spec_hash": sweep.spec_hash, "runs": _runs(sweep)}
    sentence = f"{sweep_file} is valid: sweep {sweep.name} ({sweep.spec_hash}), {counted_runs(sweep)}"
    if not options.deep:
        if options.as_json:
            consoles.output.print_json(json.dumps(summary))
        else:
            print_line(consoles.output, sentence)
        return ExitCode.OK
    from surogate_bench_orchestrator.cli.commands.inspection import command  # noqa: PLC0415 - not for a check of the file alone

    findings = command.inspect_sweep(sweep, options.store, options.state_dir, consoles)
    if isinstance(findings, ExitCode):
        return findings
    if options.as_json:
        command.show_as_json(findings, summary, consoles)
    else:
        print_line(consoles.output, sentence)
        command.show(findings, sweep, consoles)
    return ExitCode.OK


def _runs(sweep: RecipeSweep) -> int:
    return len(sweep.trained) * len(sweep.seeds)


def counted_runs(sweep: RecipeSweep) -> str:
    """Return what a sweep scores, in prose."""
    runs = _runs(sweep)
    foreign = f", {len(sweep.adapters)} imported" if sweep.adapters else ""
    base = " and the base model" if sweep.evaluation.evaluate_base else ""
    return f"{runs} run{'s' * (runs != 1)}{foreign}{base}"
