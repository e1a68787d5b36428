"""Arguments and options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from surogate_bench import __version__
from surogate_bench.stages.exports import ExportFormat
from surogate_bench_orchestrator.cli.targets.target import On
from surogate_bench_orchestrator.cli.terminal.consoles import print_line, standard_consoles


class OutputFormat(StrEnum):
    """Form of a result."""

    TEXT = "text"
    JSON = "json"


def _show_version(requested: bool) -> None:
    if requested:
        print_line(standard_consoles().output, __version__)
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
]
SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep's file.", show_default=False)]
SweepOrName = Annotated[
    Path,
    typer.Argument(metavar="SWEEP", help="The sweep's YAML file; on kubernetes also its name.", show_default=False),
]
SweepToCheck = Annotated[
    Path | None,
    typer.Argument(metavar="SWEEP.yaml", help="A sweep to run on this machine.", show_default="the built-in recipes"),
]
Seeds = Annotated[
    list[int] | None,
    typer.Option(
        "--seed",
        help="Train with this seed instead of those in the file; may be repeated.",
        show_default="the file's seeds",
    ),
]
RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe of the sweep, for example qfp4.", show_default=False)
]
ExportTo = Annotated[
    Path | None,
    typer.Option("--output", help="Folder to write, absent or empty.", show_default="SWEEP-RECIPE-FORMAT"),
]
ExportAs = Annotated[
    ExportFormat,
    typer.Option(
        "--format",
        help="native: as the recipe stores the weights (compressed-tensors or bitsandbytes); bf16: dequantized.",
    ),
]
Deep = Annotated[
    bool,
    typer.Option(
        "--deep", help="Also check model and data as a run does, and show what would be trained and what it needs."
    ),
]
Delete = Annotated[bool, typer.Option("--delete", help="Remove what is listed; by default nothing is removed.")]
Superseded = Annotated[
    bool, typer.Option("--superseded", help="Also remove earlier versions of sweeps that have a report.")
]
RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run, for example fp8-s0; or prepare, model-server.", show_default=False),
]
StageName = Annotated[
    str | None,
    typer.Option(
        help="Only this stage of the run: train (import for a foreign adapter); eval or eval-RECIPE; task-TASK; merged "
        "or merged-RECIPE; serving-merged or serving-merged-RECIPE for the server of a merged adapter.",
        show_default="all",
    ),
]
Tail = Annotated[int, typer.Option(min=1, help="Number of lines to show from the end of each log.")]
Output = Annotated[OutputFormat, typer.Option(help="Output format; --json is short for --output json.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
Where = Annotated[On, typer.Option("--on", help="Where the sweep runs.")]

Store = Annotated[str, typer.Option(help="Location of the results: a folder, or s3://bucket/prefix, gs://…, az://….")]
StateDir = Annotated[Path, typer.Option(help="Folder for logs and the state of local processes.")]
Slots = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Maximum number of tasks that train or serve at once; 1 measures each trainer's speed alone.",
        show_default="as many as the machine allows",
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Fail immediately if another process is running this sweep.")]
NoReuse = Annotated[
    bool,
    typer.Option("--no-reuse", help="Compute every stage, even if the store has the result of an equal one."),
]

Namespace = Annotated[
    str | None,
    typer.Option(help="Namespace (kubernetes only).", show_default="the context's"),
]
KubeContext = Annotated[
    str | None,
    typer.Option("--context", help="Context of KUBECONFIG (kubernetes only).", show_default="the current one"),
]
ReportTo = Annotated[
    Path | None,
    typer.Option("--report", help="Folder for the report (kubernetes only).", show_default="results/SWEEP-HASH/report"),
]
