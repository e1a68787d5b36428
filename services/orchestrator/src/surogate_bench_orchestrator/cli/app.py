"""The command line, ``surogate-bench``.

Exit codes: 0 all runs succeeded, 1 a run failed (or the sweep could not continue), 2 bad input, 130 interrupted.
Commands import their dependencies when they run, so that ``--help`` and errors are fast.
"""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from surogate_bench.errors import BenchError, ConfigError, ExitCode
from surogate_bench.stages.exports import ExportFormat
from surogate_bench_orchestrator.cli.commands.controller import controller
from surogate_bench_orchestrator.cli.commands.init.options import init
from surogate_bench_orchestrator.cli.options import (
    AsJson,
    Deep,
    Delete,
    ExportAs,
    ExportTo,
    KubeContext,
    Namespace,
    NoReuse,
    NoWait,
    Output,
    OutputFormat,
    RecipeName,
    ReportTo,
    RunName,
    Seeds,
    Slots,
    StageName,
    StateDir,
    Store,
    Superseded,
    SweepFile,
    SweepOrName,
    SweepToCheck,
    Tail,
    Version,
    Where,
)
from surogate_bench_orchestrator.cli.signals import Interrupted
from surogate_bench_orchestrator.cli.targets.selection import select_target
from surogate_bench_orchestrator.cli.targets.target import ClusterOptions, LocalOptions, On, SweepArgument
from surogate_bench_orchestrator.cli.terminal.consoles import print_line, standard_consoles
from surogate_bench_orchestrator.cli.terminal.streams import prepare_streams

app = typer.Typer(
    name="surogate-bench",
    help="Measure what a training precision recipe costs in accuracy and what it saves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_DEFAULTS = LocalOptions()


@app.callback()
def _root(*, version: Version = False) -> None:
    del version  # handled by its callback


app.command()(init)


@app.command()
def run(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepFile,
    *,
    seed: Seeds = None,
    store: Store = _DEFAULTS.store,
    state_dir: StateDir = _DEFAULTS.state_dir,
    slots: Slots = None,
    no_wait: NoWait = False,
    no_reuse: NoReuse = False,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
    report_to: ReportTo = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep, or continue an interrupted one, and show its report.

    Testing whether recipes differ requires two or more seeds: --seed 0 --seed 1 --seed 2. Other commands need the same
    options to find that sweep.
    """
    local = LocalOptions(store=store, state_dir=state_dir, slots=slots, no_wait=no_wait, no_reuse=no_reuse)
    cluster = ClusterOptions(namespace=namespace, kube_context=kube_context, report_to=report_to)
    target = select_target(context, on, local, cluster)
    raise typer.Exit(target.run(SweepArgument(sweep, seed or ()), as_json=as_json))


@app.command()
def status(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepOrName,
    *,
    seed: Seeds = None,
    store: Store = _DEFAULTS.store,
    state_dir: StateDir = _DEFAULTS.state_dir,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
    as_json: AsJson = False,
) -> None:
    """Show the status of a sweep."""
    local = LocalOptions(store=store, state_dir=state_dir)
    cluster = ClusterOptions(namespace=namespace, kube_context=kube_context)
    select_target(context, on, local, cluster).status(SweepArgument(sweep, seed or ()), as_json=as_json)


@app.command()
def report(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepOrName,
    *,
    seed: Seeds = None,
    store: Store = _DEFAULTS.store,
    state_dir: StateDir = _DEFAULTS.state_dir,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
    output: Annotated[Path | None, typer.Option(help="Copy the report into this folder.", show_default=False)] = None,
) -> None:
    """Show a table of the runs that have finished so far, and write the report next to the results.

    On kubernetes, fetch the report that the controller has written.
    """
    local = LocalOptions(store=store, state_dir=state_dir)
    cluster = ClusterOptions(namespace=namespace, kube_context=kube_context)
    select_target(context, on, local, cluster).report(SweepArgument(sweep, seed or ()), folder=output)


@app.command()
def logs(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepOrName,
    run_name: RunName,
    *,
    stage: StageName = None,
    tail: Tail = 200,
    seed: Seeds = None,
    store: Store = _DEFAULTS.store,
    state_dir: StateDir = _DEFAULTS.state_dir,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
) -> None:
    """Show the logs of the training and the evaluations of a run."""
    local = LocalOptions(store=store, state_dir=state_dir)
    cluster = ClusterOptions(namespace=namespace, kube_context=kube_context)
    select_target(context, on, local, cluster).logs(SweepArgument(sweep, seed or ()), run_name, stage=stage, tail=tail)


@app.command()
def render(  # noqa: PLR0913 - an option each
    context: typer.Context,
    sweep: SweepFile,
    *,
    seed: Seeds = None,
    store: Store = _DEFAULTS.store,
    state_dir: StateDir = _DEFAULTS.state_dir,
    slots: Slots = None,
    on: Where = On.LOCAL,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Show what `run` would start, as YAML or JSON, and start nothing; on kubernetes, the RecipeSweep resource."""
    local = LocalOptions(store=store, state_dir=state_dir, slots=slots)
    cluster = ClusterOptions(namespace=namespace)
    select_target(context, on, local, cluster).render(SweepArgument(sweep, seed or ()), as_json=as_json)


@app.command()
def recipes(*, as_json: AsJson = False) -> None:
    """List the built-in recipes, and the engine that runs each of them on this machine."""
    from surogate_bench_orchestrator.cli.commands.recipes import show_recipes  # noqa: PLC0415 - see above

    show_recipes(as_json=as_json, consoles=standard_consoles())


@app.command()
def doctor(
    sweep: SweepToCheck = None,
    *,
    store: Store = _DEFAULTS.store,
    state_dir: StateDir = _DEFAULTS.state_dir,
    output: Output = OutputFormat.TEXT,
    as_json: AsJson = False,
) -> None:
    """Describe this machine, which recipes it can run, and whether its engines compute them correctly.

    The exit code is 0 if a sweep can run on this machine, otherwise 1.
    """
    from surogate_bench_orchestrator.cli.commands.doctor.command import DoctorOptions, run_doctor  # noqa: PLC0415 - see above

    form = OutputFormat.JSON if as_json else output
    options = DoctorOptions(sweep_file=sweep, store=store, state_dir=state_dir, output=form)
    raise typer.Exit(run_doctor(options, standard_consoles()))


@app.command()
def validate(
    sweep: SweepFile,
    *,
    deep: Deep = False,
    seed: Seeds = None,
    store: Store = _DEFAULTS.store,
    state_dir: StateDir = _DEFAULTS.state_dir,
    as_json: AsJson = False,
) -> None:
    """Check a sweep file without running it; with --deep, also model and data, and show what would be trained."""
    from surogate_bench_orchestrator.cli.commands import validate as command  # noqa: PLC0415 - see above

    options = command.ValidateOptions(store=store, state_dir=state_dir, seeds=seed or (), deep=deep, as_json=as_json)
    raise typer.Exit(command.validate_sweep(sweep, options, standard_consoles()))


@app.command("export-base")
def export_base(  # noqa: PLR0913 - an option each
    sweep: SweepFile,
    recipe: RecipeName,
    *,
    output: ExportTo = None,
    form: ExportAs = ExportFormat.NATIVE,
    seed: Seeds = None,
    store: Store = _DEFAULTS.store,
    state_dir: StateDir = _DEFAULTS.state_dir,
    as_json: AsJson = False,
) -> None:
    """Write the base weights of a recipe as a checkpoint that vLLM and other servers load."""
    from surogate_bench_orchestrator.cli.commands import export_base as export_command  # noqa: PLC0415 - see above

    options = export_command.ExportOptions(
        recipe=recipe, export_format=form, output=output, store=store, state_dir=state_dir, seeds=seed, as_json=as_json
    )
    raise typer.Exit(export_command.export_base(sweep, options, standard_consoles()))


@app.command()
def gc(
    *,
    store: Store = _DEFAULTS.store,
    delete: Delete = False,
    superseded: Superseded = False,
    as_json: AsJson = False,
) -> None:
    """List data that no sweep needs any more: superseded versions of edited sweeps, and leftover checkpoints.

    For each sweep name, the version used last is kept, with the results of earlier versions that it refers to.
    Versions that have a report are kept unless --superseded is given.
    """
    from surogate_bench_orchestrator.cli.commands.gc import collect_garbage  # noqa: PLC0415 - see above

    collect_garbage(store, delete=delete, superseded=superseded, as_json=as_json, consoles=standard_consoles())


app.command(hidden=True)(controller)


def main() -> None:
    """Run the command line and exit; an expected error is one message, without a traceback."""
    try:
        prepare_streams()
        app()
    except ConfigError as error:
        _fail(str(error), ExitCode.BAD_INPUT)
    except BenchError as error:
        _fail(str(error), ExitCode.FAILED)
    except (Interrupted, KeyboardInterrupt):
        _fail("interrupted; run the same command again to continue", ExitCode.INTERRUPTED)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror or error}{where}; run the same command again to continue", ExitCode.FAILED)


def _fail(message: str, code: ExitCode) -> NoReturn:
    print_line(standard_consoles().messages, f"surogate-bench: {message}")
    sys.exit(code)
