"""The Kubernetes API as the command line uses it."""

from typing import Any

from kubernetes.client import ApiException
from typing_extensions import override

from surogate_bench.contract import CONTROLLER_PORT
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench_orchestrator.cli.targets.cluster.cluster_api import ClusterApi, Pod, Resource
from surogate_bench_orchestrator.cli.targets.cluster.forwarding import get_from_pod
from surogate_bench_orchestrator.resource import API_VERSION, GROUP, PLURAL
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api
from surogate_bench_orchestrator.runtimes.kubernetes.connecting import connect
from surogate_bench_orchestrator.runtimes.kubernetes.observation.pod_status import containers_with_logs

MANAGER = "surogate-bench-cli"
"""Field manager."""
_CONTROLLER = "app.kubernetes.io/name=surogate-bench,app.kubernetes.io/component=orchestrator"
_NOT_FOUND, _INVALID, _FORBIDDEN, _UNAUTHORIZED = 404, 422, 403, 401


def open_cluster(*, context: str | None, namespace: str | None) -> "KubernetesApi":
    """Connect to the cluster that KUBECONFIG names.

    Args:
        context: One of its contexts; the current one if None.
        namespace: The context's if None.

    Raises:
        ConfigError: there is no such cluster.
    """
    connection = connect(context)
    return KubernetesApi(Api(connection.client), namespace or connection.namespace)


class KubernetesApi(ClusterApi):
    """A namespace of the cluster that KUBECONFIG names."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._sweeps = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"

    @property
    @override
    def namespace(self) -> str:
        return self._namespace

    @override
    def check(self) -> None:
        try:
            self._api.list(self._sweeps)
        except PermanentError as error:
            raise self._explained(error) from error

    @override
    def get(self, name: str) -> Resource | None:
        return self._api.get(f"{self._sweeps}/{name}")

    @override
    def apply(self, manifest: Resource) -> Resource:
        try:
            return self._api.apply(f"{self._sweeps}/{manifest['metadata']['name']}", manifest, manager=MANAGER)
        except PermanentError as error:
            raise self._explained(error) from error

    @override
    def controllers(self) -> list[Pod]:
        return self._list_pods(_CONTROLLER)

    @override
    def pods(self, sweep: str, **labels: str) -> list[Pod]:
        selected = {"sweep": sweep, **labels}
        return self._list_pods(",".join(f"{GROUP}/{name}={value}" for name, value in selected.items()))

    @override
    def log(self, pod: Pod, *, tail: int) -> str:
        path = f"{self._pods}/{pod.name}/log"
        texts = [self._api.text(path, container=name, tailLines=str(tail)) for name in pod.containers]
        return "".join([f"{line}\n" for text in texts for line in text.splitlines()][-tail:])

    @override
    def download(self, pod: Pod, path: str) -> bytes:
        return get_from_pod(self._api.client, namespace=self._namespace, pod=pod.name, port=CONTROLLER_PORT, path=path)

    def _list_pods(self, selector: str) -> list[Pod]:
        found = [_pod(item) for item in self._api.list(self._pods, labelSelector=selector)]
        return sorted(found, key=lambda pod: (pod.created, pod.name))

    def _explained(self, error: PermanentError) -> ConfigError | PermanentError:
        cause = error.__cause__
        status = cause.status if isinstance(cause, ApiException) else None
        if status == _NOT_FOUND and f'namespaces "{self._namespace}"' in str(error):
            return ConfigError(
                "does not exist", field="namespace", value=self._namespace, remedy="Choose another or create it."
            )
        if status == _NOT_FOUND:
            return ConfigError(
                "the cluster knows no RecipeSweeps",
                field="context",
                remedy=f"Install surogate-bench: helm install surogate-bench charts/ --namespace {self._namespace}",
            )
        if status == _INVALID:
            return ConfigError(f"the cluster refuses it: {error}", field="sweep", remedy="Correct it.")
        if status in {_FORBIDDEN, _UNAUTHORIZED}:
            return ConfigError(
                f"access is refused: {error}",
                field="context",
                remedy="Use one that may read and apply recipesweeps in this namespace.",
            )
        return error


def _pod(item: dict[str, Any]) -> Pod:
    metadata, conditions = item["metadata"], item.get("status", {}).get("conditions") or ()
    return Pod(
        name=metadata["name"],
        ready=any(each["type"] == "Ready" and each["status"] == "True" for each in conditions),
        stage=metadata.get("labels", {}).get(f"{GROUP}/stage", ""),
        created=metadata.get("creationTimestamp", ""),
        containers=containers_with_logs(item),
    )
