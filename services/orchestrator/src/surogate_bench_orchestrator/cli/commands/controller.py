"""``surogate-bench controller``, which the chart runs."""

from pathlib import Path
from typing import Annotated

import typer

from surogate_bench.contract import CONTROLLER_PORT


def controller(
    *,
    config: Annotated[Path, typer.Option(help="The installation's settings.")] = Path(
        "/etc/surogate-bench/controller.yaml"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="For health, metrics and reports.")] = CONTROLLER_PORT,
) -> None:
    """Run the controller of RecipeSweeps in a cluster."""
    from surogate_bench_orchestrator.controller.app import run_controller  # noqa: PLC0415 - only this command needs it

    raise typer.Exit(run_controller(config, port=port))
