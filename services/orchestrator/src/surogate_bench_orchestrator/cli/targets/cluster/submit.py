"""Submit a sweep to a cluster."""

from surogate_bench.errors import ConfigError
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.cli.targets.cluster.cluster_api import ClusterApi, Resource
from surogate_bench_orchestrator.resource.model import parse_resource, resource_of


def submit(api: ClusterApi, sweep: RecipeSweep) -> Resource:
    """Apply a sweep's resource; a resource that exists already is left as it is.

    Returns:
        The resource as stored.

    Raises:
        ConfigError: surogate-bench is not installed, the sweep needs local folders, or another one has that name.
        TransientError: the cluster is unavailable.
        PermanentError: it refuses.
    """
    manifest = resource_of(sweep, api.namespace)
    api.check()
    if not api.controllers():
        raise ConfigError(
            "no controller of surogate-bench runs there",
            field="namespace",
            value=api.namespace,
            remedy="Choose its namespace with --namespace, or install it: "
            f"helm install surogate-bench charts/ --namespace {api.namespace} --create-namespace",
        )
    present = api.get(sweep.name)
    if present is None:
        return api.apply(manifest)
    if present["metadata"].get("deletionTimestamp"):
        raise ConfigError(
            "is being deleted", field="name", value=sweep.name, remedy="Wait until it is gone, then run it again."
        )
    require_same(present, sweep)
    return present


def require_same(present: Resource, sweep: RecipeSweep) -> None:
    """Check that a resource is the experiment that a file describes.

    Raises:
        ConfigError: it is another one.
    """
    try:
        same = parse_resource(present).sweep.spec_hash == sweep.spec_hash
    except ConfigError:
        same = False
    if not same:
        raise ConfigError(
            "the cluster has a sweep of this name with other settings",
            field="name",
            value=sweep.name,
            remedy=f"Choose another name, or delete that one: kubectl delete recipesweep {sweep.name}",
        )
