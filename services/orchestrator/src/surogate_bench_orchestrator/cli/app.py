"""The command line, ``surogate-bench``.

Exit codes: 0 all runs succeeded, 1 some run failed (or the sweep could not go on), 2 bad input, 130 interrupted.
Commands import what they need when they run, so that ``--help`` and mistakes answer at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from surogate_bench import __version__
from surogate_bench.contract import CONTROLLER_PORT
from surogate_bench.errors import BenchError, ConfigError, ExitCode
from surogate_bench_orchestrator.cli.options import (
    AsJson,
    KubeContext,
    Namespace,
    On,
    Seeds,
    Slots,
    Stage,
    StateDir,
    Store,
    SweepFile,
    SweepOrName,
    Where,
)
from surogate_bench_orchestrator.cli.streams import prepare_streams

if TYPE_CHECKING:
    from surogate_bench_orchestrator.cli.cluster.commands import Consoles
    from surogate_bench_orchestrator.cli.cluster.kubernetes_api import KubernetesApi

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

_LOCAL_ONLY = ("store", "state_dir", "slots", "no_wait", "no_reuse")
_CLUSTER_ONLY = ("namespace", "kube_context", "report_to")
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
def run(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepFile,
    *,
    seed: Seeds = None,
    store: Store = _STORE,
    state_dir: StateDir = _STATE_DIR,
    slots: Slots = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Fail at once if another process works on this sweep.")
    ] = False,
    no_reuse: Annotated[
        bool,
        typer.Option("--no-reuse", help="Compute every stage, even where the store has an equal one of another sweep."),
    ] = False,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
    report_to: Annotated[
        Path | None,
        typer.Option(
            "--report", help="Folder for the report (kubernetes only).", show_default="results/SWEEP-HASH/report"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep, or go on with one that was interrupted, and report on it.

    Whether recipes differ takes two or more seeds: --seed 0 --seed 1 --seed 2. Other commands find that sweep by the
    same options.
    """
    _refuse_foreign_options(context, on)
    if on is On.KUBERNETES:
        from surogate_bench.specs import load_sweep, with_seeds  # noqa: PLC0415 - see above
        from surogate_bench_orchestrator.cli.cluster import commands  # noqa: PLC0415 - see above
        from surogate_bench_orchestrator.sweep.clock import SystemClock  # noqa: PLC0415 - see above

        wanted = with_seeds(load_sweep(sweep), seed or ())
        cluster, consoles = _cluster(kube_context, namespace)
        raise typer.Exit(
            commands.run_on_cluster(
                cluster, wanted, folder=report_to, as_json=as_json, consoles=consoles, clock=SystemClock()
            )
        )
    from surogate_bench_orchestrator.cli import run_command, session  # noqa: PLC0415 - see above

    options = run_command.RunOptions(wait=not no_wait, as_json=as_json, slots=slots)
    opened = session.open_session(sweep, store=store, state_dir=state_dir, reuse=not no_reuse, seeds=seed)
    raise typer.Exit(run_command.run_sweep(opened, options, output=_output(), messages=_messages()))


@app.command()
def status(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepOrName,
    *,
    seed: Seeds = None,
    store: Store = _STORE,
    state_dir: StateDir = _STATE_DIR,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
    as_json: AsJson = False,
) -> None:
    """Show how a sweep stands."""
    _refuse_foreign_options(context, on)
    if on is On.KUBERNETES:
        from surogate_bench_orchestrator.cli.cluster import commands  # noqa: PLC0415 - see above

        cluster, consoles = _cluster(kube_context, namespace)
        commands.show_status(cluster, sweep, as_json=as_json, consoles=consoles, seeds=seed)
        return
    from surogate_bench_orchestrator.cli import look_commands, session  # noqa: PLC0415 - see above

    opened = session.open_session(sweep, store=store, state_dir=state_dir, create=False, seeds=seed)
    look_commands.show_status(opened, json_wanted=as_json, output=_output())


@app.command()
def report(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepOrName,
    *,
    seed: Seeds = None,
    store: Store = _STORE,
    state_dir: StateDir = _STATE_DIR,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
    output: Annotated[Path | None, typer.Option(help="Copy the report into this folder.", show_default=False)] = None,
) -> None:
    """Report on what has finished so far: show the table, and write the report beside the results.

    On kubernetes the controller has written it, and it is fetched.
    """
    _refuse_foreign_options(context, on)
    if on is On.KUBERNETES:
        from surogate_bench_orchestrator.cli.cluster import commands  # noqa: PLC0415 - see above

        cluster, consoles = _cluster(kube_context, namespace)
        commands.get_report(cluster, sweep, folder=output, consoles=consoles, seeds=seed)
        return
    from surogate_bench_orchestrator.cli import look_commands, session  # noqa: PLC0415 - see above

    opened = session.open_session(sweep, store=store, state_dir=state_dir, create=False, seeds=seed)
    look_commands.make_report(opened, folder=output, output=_output())


@app.command()
def logs(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepOrName,
    run_name: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run, for example fp8-s0; or prepare, model-server.", show_default=False),
    ],
    *,
    stage: Annotated[Stage | None, typer.Option(help="Only this stage of the run.", show_default="all")] = None,
    tail: Annotated[int, typer.Option(min=1, help="So many last lines.")] = 200,
    seed: Seeds = None,
    store: Store = _STORE,
    state_dir: StateDir = _STATE_DIR,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
) -> None:
    """Show what a run wrote while it trained and was evaluated."""
    _refuse_foreign_options(context, on)
    if on is On.KUBERNETES:
        from surogate_bench_orchestrator.cli.cluster import commands  # noqa: PLC0415 - see above

        cluster, consoles = _cluster(kube_context, namespace)
        commands.show_logs(cluster, sweep, run_name, stage=stage, tail=tail, consoles=consoles, seeds=seed)
        return
    from surogate_bench_orchestrator.cli import session  # noqa: PLC0415 - see above
    from surogate_bench_orchestrator.cli.logs import show_local_logs  # noqa: PLC0415 - see above

    opened = session.open_session(sweep, store=store, state_dir=state_dir, create=False, seeds=seed)
    show_local_logs(opened, run_name, stage=stage, tail=tail, output=_output())


@app.command()
def recipes(*, as_json: AsJson = False) -> None:
    """List the built-in recipes, and the engine with which this machine runs each."""
    from surogate_bench_orchestrator.cli import look_commands  # noqa: PLC0415 - see above

    look_commands.show_recipes(json_wanted=as_json, output=_output())


@app.command()
def validate(sweep: SweepFile) -> None:
    """Check a sweep file without running it."""
    from surogate_bench_orchestrator.cli import look_commands  # noqa: PLC0415 - see above

    look_commands.check_sweep(sweep, _output())


@app.command()
def render(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepFile,
    *,
    seed: Seeds = None,
    store: Store = _STORE,
    state_dir: StateDir = _STATE_DIR,
    slots: Slots = None,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Show what `run` would start, as YAML or JSON, and start nothing; on kubernetes, the RecipeSweep resource."""
    _refuse_foreign_options(context, on)
    if on is On.KUBERNETES:
        from surogate_bench.specs import load_sweep, with_seeds  # noqa: PLC0415 - see above
        from surogate_bench_orchestrator.cli.cluster import commands  # noqa: PLC0415 - see above

        commands.render_resource(
            with_seeds(load_sweep(sweep), seed or ()), namespace=namespace, as_json=as_json, output=_output()
        )
        return
    from surogate_bench_orchestrator.cli import look_commands, session  # noqa: PLC0415 - see above

    opened = session.open_session(sweep, store=store, state_dir=state_dir, create=False, seeds=seed)
    look_commands.render_tasks(opened, slots=slots, json_wanted=as_json, output=_output())


@app.command()
def gc(
    *,
    store: Store = _STORE,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this it is only shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what no sweep needs any more: superseded versions of edited sweeps, and left-over checkpoints.

    Of each sweep name the version used last is kept, with the results of earlier versions that it refers to.
    """
    from surogate_bench_orchestrator.cli.gc_command import collect_garbage  # noqa: PLC0415 - see above

    collect_garbage(store, delete=delete, as_json=as_json, output=_output())


@app.command(hidden=True)
def controller(
    *,
    config: Annotated[Path, typer.Option(help="The installation's settings.")] = Path(
        "/etc/surogate-bench/controller.yaml"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="For health, metrics and reports.")] = CONTROLLER_PORT,
) -> None:
    """Run in a cluster: bring its RecipeSweeps to their ends."""
    from surogate_bench_orchestrator.controller import app as cluster  # noqa: PLC0415 - see above

    raise typer.Exit(cluster.run_controller(config, port=port))


def main() -> None:
    """Run the command line and exit; an error on purpose is one message, without a traceback."""
    from surogate_bench_orchestrator.cli.signals import Interrupted  # noqa: PLC0415 - see above

    try:
        prepare_streams()
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


def _refuse_foreign_options(context: typer.Context, on: On) -> None:
    """Refuse options that would have no effect, instead of ignoring them."""
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in _LOCAL_ONLY if on is On.KUBERNETES else _CLUSTER_ONLY:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"has no effect on {on}", field=options[name], remedy="Remove it, or choose another --on."
            )


def _cluster(context: str | None, namespace: str | None) -> "tuple[KubernetesApi, Consoles]":
    from surogate_bench_orchestrator.cli.cluster import commands, kubernetes_api  # noqa: PLC0415 - see above

    cluster = kubernetes_api.open_cluster(context=context, namespace=namespace)
    return cluster, commands.Consoles(output=_output(), messages=_messages())


def _output() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _messages() -> Console:
    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH)
