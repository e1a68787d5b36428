"""The Kubernetes side of the command line, against an HTTP server that answers like an API server."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from kubernetes.client import ApiClient, Configuration

from surogate_bench.errors import BenchError, ConfigError, PermanentError, TransientError
from surogate_bench_orchestrator.cli.targets.cluster.cluster_api import Pod
from surogate_bench_orchestrator.cli.targets.cluster.kubernetes_api import KubernetesApi, open_cluster
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api

SWEEPS = "/apis/bench.surogate.ai/v1alpha1/namespaces/lab/recipesweeps"
PODS = "/api/v1/namespaces/lab/pods"
MANIFEST = {"metadata": {"name": "small"}}


class ApiServer(http.server.ThreadingHTTPServer):
    """Answers what a test has put into ``answers``, by path; 404 as for an unknown API otherwise."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(unquote(f"{self.command} {self.path}"))
        code, body = self.server.answers.get(self.path.partition("?")[0], (404, "404 page not found\n"))
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PATCH = do_GET  # noqa: N815 - the name that the base class calls

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def cluster_at(url: str) -> KubernetesApi:
    configuration = Configuration()
    configuration.host = url
    configuration.retries = False
    return KubernetesApi(Api(ApiClient(configuration)), "lab")


@pytest.fixture
def cluster(server: ApiServer) -> KubernetesApi:
    return cluster_at(server.url)


def refusal(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message}


def test_a_cluster_that_knows_no_recipesweeps_needs_an_installation(cluster: KubernetesApi) -> None:
    with pytest.raises(ConfigError, match="helm install surogate-bench") as caught:
        cluster.check()
    assert "knows no RecipeSweeps" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (refusal(403, "Forbidden", "user x cannot patch recipesweeps"), ConfigError, "user x cannot patch"),
        (refusal(401, "Unauthorized", "Unauthorized"), ConfigError, "access is refused"),
        (refusal(422, "Invalid", "spec.seeds: odd"), ConfigError, "spec.seeds: odd"),
        (refusal(404, "NotFound", 'namespaces "lab" not found'), ConfigError, "namespace: does not exist"),
        (refusal(405, "MethodNotAllowed", "no patching"), PermanentError, "no patching"),
        (refusal(500, "InternalError", "etcd is down"), TransientError, "etcd is down"),
    ],
)
def test_a_refusal_says_why(
    server: ApiServer, cluster: KubernetesApi, answer: tuple[int, Any], kind: type[BenchError], words: str
) -> None:
    server.answers[f"{SWEEPS}/small"] = answer
    with pytest.raises(kind, match=words):
        cluster.apply(MANIFEST)


def test_a_sweep_is_applied_as_the_command_lines_own(server: ApiServer, cluster: KubernetesApi) -> None:
    server.answers[f"{SWEEPS}/small"] = (200, MANIFEST)
    assert cluster.apply(MANIFEST) == MANIFEST
    assert cluster.get("small") == MANIFEST
    assert cluster.get("other") is None
    assert "fieldManager=surogate-bench-cli" in server.requests[0]


def test_pods_come_oldest_first_with_their_stage(server: ApiServer, cluster: KubernetesApi) -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    items = [
        {"metadata": {"name": "b", "creationTimestamp": "2026-01-02T00:00:00Z"}, "status": ready},
        {"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z",
                      "labels": {"bench.surogate.ai/stage": "train"}}},
    ]  # fmt: skip
    server.answers[PODS] = (200, {"items": items})
    first, second = cluster.pods("small", run="bf16-s0", stage="train")
    assert (first.name, first.stage, first.ready) == ("a", "train", False)
    assert (second.name, second.ready) == ("b", True)
    assert "bench.surogate.ai/sweep=small,bench.surogate.ai/run=bf16-s0" in server.requests[0]
    assert len(cluster.controllers()) == 2
    assert "component=orchestrator" in server.requests[1]


def test_a_log_is_the_last_lines_of_a_pod(server: ApiServer, cluster: KubernetesApi) -> None:
    server.answers[f"{PODS}/a/log"] = (200, "two\n")
    assert cluster.log(Pod(name="a", ready=True), tail=1) == "two\n"
    assert server.requests[0].endswith("?container=main&tailLines=1")


def test_the_log_of_a_foreign_trainers_pod_is_that_of_all_its_containers(
    server: ApiServer, cluster: KubernetesApi
) -> None:
    state = {"running": {}}
    status = {"initContainerStatuses": [{"name": "prepare", "state": state}, {"name": "trainer", "state": state}]}
    server.answers[PODS] = (200, {"items": [{"metadata": {"name": "a"}, "status": status}], "metadata": {}})
    server.answers[f"{PODS}/a/log"] = (200, "one\ntwo\n")
    (pod,) = cluster.pods("small")
    assert cluster.log(pod, tail=3) == "two\none\ntwo\n"
    asked = [request.partition("container=")[2] for request in server.requests if "/log" in request]
    assert asked == ["prepare&tailLines=3", "trainer&tailLines=3"]


def test_a_pod_that_cannot_be_reached_may_be_reached_later(cluster: KubernetesApi) -> None:
    with pytest.raises(TransientError, match=r"small\.tar from pod a"):
        cluster.download(Pod(name="a", ready=True), "/reports/small.tar")


def test_a_cluster_that_does_not_answer_may_answer_later(server: ApiServer) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(TransientError, match="/recipesweeps/small"):
        cluster_at(url).get("small")


@pytest.mark.parametrize(
    ("context", "namespace", "expected"),
    [(None, None, "lab"), ("bare", None, "default"), ("bare", "mine", "mine")],
)
def test_the_namespace_is_the_contexts_unless_one_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: str | None, namespace: str | None, expected: str
) -> None:
    use_kubeconfig(tmp_path, monkeypatch)
    assert open_cluster(context=context, namespace=namespace).namespace == expected


def test_an_unknown_context_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kubeconfig(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="--context: names no cluster"):
        open_cluster(context="nowhere", namespace=None)


def use_kubeconfig(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = [
        {"name": "with", "context": {"cluster": "c", "user": "u", "namespace": "lab"}},
        {"name": "bare", "context": {"cluster": "c", "user": "u"}},
    ]
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "with", "contexts": contexts,
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("KUBECONFIG", str(path))


def test_a_pod_without_a_service_account_names_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for host in ("", "10.0.0.1"):
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        with pytest.raises(ConfigError, match="KUBECONFIG: names no cluster"):
            open_cluster(context=None, namespace=None)
