"""Arguments and options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep to work on.", show_default=False)]
Store = Annotated[str, typer.Option(help="Where results go: a folder, or s3://bucket/prefix, gs://…, az://….")]
StateDir = Annotated[Path, typer.Option(help="Folder for logs and the state of local processes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
Slots = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="At most so many tasks that train or serve at once; 1 measures each trainer's speed alone.",
        show_default="as many as the machine allows",
    ),
]
Seeds = Annotated[
    list[int] | None,
    typer.Option(
        "--seed",
        help="Train with this seed instead of those in the file; give it several times for several seeds.",
        show_default="the file's seeds",
    ),
]


class On(StrEnum):
    """Where a sweep runs."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


class Stage(StrEnum):
    """A stage of a run."""

    TRAIN = "train"
    EVAL = "eval"


SweepOrName = Annotated[
    Path,
    typer.Argument(metavar="SWEEP", help="The sweep's YAML file; on kubernetes its name will do.", show_default=False),
]
Where = Annotated[On, typer.Option("--on", help="Where it runs.")]
Namespace = Annotated[
    str | None,
    typer.Option(help="Namespace (kubernetes only).", show_default="the context's"),
]
KubeContext = Annotated[
    str | None,
    typer.Option("--context", help="Context of KUBECONFIG (kubernetes only).", show_default="the current one"),
]
