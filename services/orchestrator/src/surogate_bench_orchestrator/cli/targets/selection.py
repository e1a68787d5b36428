"""Select the target that ``--on`` names."""

from dataclasses import fields

import typer

from surogate_bench.errors import ConfigError
from surogate_bench_orchestrator.cli.targets.target import ClusterOptions, LocalOptions, On, Target
from surogate_bench_orchestrator.cli.terminal.consoles import standard_consoles


def select_target(context: typer.Context, on: On, local: LocalOptions, cluster: ClusterOptions) -> Target:
    """Return the target; only its modules are imported, as those of each take time to load.

    Raises:
        ConfigError: the command line has an option of the other target.
    """
    _refuse_options_of_the_other(context, on)
    consoles = standard_consoles()
    if on is On.LOCAL:
        from surogate_bench_orchestrator.cli.targets.local.target import LocalTarget  # noqa: PLC0415 - see above

        return LocalTarget(local, consoles)
    from surogate_bench_orchestrator.cli.targets.cluster.kubernetes_api import open_cluster  # noqa: PLC0415 - see above
    from surogate_bench_orchestrator.cli.targets.cluster.target import ClusterTarget  # noqa: PLC0415 - see above

    return ClusterTarget(
        lambda: open_cluster(context=cluster.kube_context, namespace=cluster.namespace), cluster, consoles
    )


def _refuse_options_of_the_other(context: typer.Context, on: On) -> None:
    """Refuse options that would have no effect, instead of ignoring them."""
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for field in fields(LocalOptions if on is On.KUBERNETES else ClusterOptions):
        source = context.get_parameter_source(field.name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"has no effect on {on}", field=options[field.name], remedy="Remove it, or choose another --on."
            )
