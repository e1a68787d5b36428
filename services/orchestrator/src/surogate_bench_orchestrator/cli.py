"""The command line, ``surogate-bench``.

Exit codes: 0 all runs succeeded, 1 some run failed (or the sweep could not go on), 2 bad input, 130 interrupted.
Commands import what they need when they run, so that ``--help`` and mistakes answer at once.
"""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from surogate_bench import __version__
from surogate_bench.errors import BenchError, ConfigError, ExitCode

_PIPE_WIDTH = 120
"""Columns where output does not go to a terminal."""

app = typer.Typer(
    name="surogate-bench",
    help="Measure what a training precision recipe costs in accuracy and what it saves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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

_STORE = "results"
_STATE_DIR = Path(".surogate-bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        _output().print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    del version  # its callback has done all


@app.command()
def run(
    sweep: SweepFile,
    *,
    store: Store = _STORE,
    state_dir: StateDir = _STATE_DIR,
    slots: Slots = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Fail at once if another process works on this sweep.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a sweep on this machine, or go on with one that was interrupted, and report on it."""
    from surogate_bench_orchestrator import run_command, session  # noqa: PLC0415 - see above

    options = run_command.RunOptions(wait=not no_wait, as_json=as_json, slots=slots)
    opened = session.open_session(sweep, store=store, state_dir=state_dir)
    raise typer.Exit(run_command.run_sweep(opened, options, output=_output(), messages=_messages()))


@app.command()
def status(
    sweep: SweepFile, *, store: Store = _STORE, state_dir: StateDir = _STATE_DIR, as_json: AsJson = False
) -> None:
    """Show how a sweep stands."""
    from surogate_bench_orchestrator import look_commands, session  # noqa: PLC0415 - see above

    opened = session.open_session(sweep, store=store, state_dir=state_dir)
    look_commands.show_status(opened, json_wanted=as_json, output=_output())


@app.command()
def report(
    sweep: SweepFile,
    *,
    store: Store = _STORE,
    state_dir: StateDir = _STATE_DIR,
    output: Annotated[Path | None, typer.Option(help="Copy the report into this folder.", show_default=False)] = None,
) -> None:
    """Report on what has finished so far: show the table, and write the report beside the results."""
    from surogate_bench_orchestrator import look_commands, session  # noqa: PLC0415 - see above

    opened = session.open_session(sweep, store=store, state_dir=state_dir)
    look_commands.make_report(opened, folder=output, output=_output())


@app.command()
def recipes(*, as_json: AsJson = False) -> None:
    """List the built-in recipes, and the engine with which this machine runs each."""
    from surogate_bench_orchestrator import look_commands  # noqa: PLC0415 - see above

    look_commands.show_recipes(json_wanted=as_json, output=_output())


@app.command()
def validate(sweep: SweepFile) -> None:
    """Check a sweep file without running it."""
    from surogate_bench_orchestrator import look_commands  # noqa: PLC0415 - see above

    look_commands.check_sweep(sweep, _output())


@app.command()
def render(
    sweep: SweepFile,
    *,
    store: Store = _STORE,
    state_dir: StateDir = _STATE_DIR,
    slots: Slots = None,
    as_json: AsJson = False,
) -> None:
    """Show what `run` would start, as YAML or JSON, and start nothing."""
    from surogate_bench_orchestrator import look_commands, session  # noqa: PLC0415 - see above

    opened = session.open_session(sweep, store=store, state_dir=state_dir)
    look_commands.render_tasks(opened, slots=slots, json_wanted=as_json, output=_output())


def main() -> None:
    """Run the command line and exit; an error on purpose is one message, without a traceback."""
    from surogate_bench_orchestrator.signals import Interrupted  # noqa: PLC0415 - see above

    try:
        app()
    except ConfigError as error:
        _fail(str(error), ExitCode.BAD_INPUT)
    except BenchError as error:
        _fail(str(error), ExitCode.FAILED)
    except (Interrupted, KeyboardInterrupt):
        _fail("interrupted; the same command goes on from here", ExitCode.INTERRUPTED)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror or error}{where}; the same command goes on from here", ExitCode.FAILED)


def _fail(message: str, code: ExitCode) -> NoReturn:
    _messages().print(Text(f"surogate-bench: {message}"), soft_wrap=True)
    sys.exit(code)


def _output() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _messages() -> Console:
    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH)
