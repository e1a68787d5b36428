"""``surogate-bench validate``: check a sweep file."""

from pathlib import Path

from surogate_bench_orchestrator.cli.consoles import Consoles, print_line
from surogate_bench_orchestrator.cli.sweep_file import read_sweep, require_trainers


def validate_sweep(sweep_file: Path, consoles: Consoles) -> None:
    """Check a sweep file, and print that it is valid.

    Raises:
        ConfigError: it cannot be used as it is.
    """
    sweep = read_sweep(sweep_file)
    require_trainers(sweep)
    runs = len(sweep.trained) * len(sweep.seeds)
    foreign = f", {len(sweep.adapters)} imported" if sweep.adapters else ""
    base = " and the base model" if sweep.evaluation.evaluate_base else ""
    counted = f"{runs} runs{foreign}{base}"
    print_line(consoles.output, f"{sweep_file} is valid: sweep {sweep.name} ({sweep.spec_hash}), {counted}")
