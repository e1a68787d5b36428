"""Finds the cluster: from KUBECONFIG, or the one that this process runs in."""

import os
from dataclasses import dataclass
from pathlib import Path

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, list_kube_config_contexts, load_incluster_config, load_kube_config

from surogate_bench.errors import ConfigError

_DEFAULT_FILE = "~/.kube/config"
_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A cluster, and the default namespace."""

    client: ApiClient
    namespace: str


def connect(context: str | None) -> Connection:
    """Connect to a cluster.

    Args:
        context: Context of the kubeconfig; its current one if None.

    Raises:
        ConfigError: there is no such cluster.
    """
    configuration = Configuration()
    files = os.environ.get("KUBECONFIG") or _DEFAULT_FILE
    try:
        if context is None and _IN_CLUSTER in os.environ and "KUBECONFIG" not in os.environ:
            load_incluster_config(client_configuration=configuration)
            namespace = _OWN_NAMESPACE.read_text(encoding="utf-8").strip()
        else:
            load_kube_config(config_file=files, context=context, client_configuration=configuration)
            namespace = _namespace_of(files, context)
    except (ConfigException, OSError) as error:
        raise ConfigError(
            f"names no cluster: {error}",
            field="KUBECONFIG" if context is None else "--context",
            value=files if context is None else context,
            remedy="Set KUBECONFIG to a kubeconfig file, or choose one of its contexts with --context.",
        ) from error
    configuration.retries = urllib3.Retry(total=2, backoff_factor=0.2, status=0, redirect=0)
    return Connection(client=ApiClient(configuration), namespace=namespace)


def _namespace_of(files: str, context: str | None) -> str:
    contexts, current = list_kube_config_contexts(config_file=files)
    chosen = next((each for each in contexts if each["name"] == context), current)
    return str(chosen["context"].get("namespace") or "default")
