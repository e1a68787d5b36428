"""The Kubernetes runtime for the contract, on whatever cluster KUBECONFIG names."""

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from surogate_bench_orchestrator.runtimes.kubernetes.cluster import Cluster

FAKE_SERVICE = Path(__file__).with_name("fake_service.py")
IMAGE = f"surogate-bench/orchestrator:{os.environ.get('SUROGATE_BENCH_IMAGE_TAG', 'dev')}"
"""Holds what fake_service.py imports."""


PYTHON = ("/opt/venv/bin/python", "-P", "-c")
COUNTER = """
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

seen = Counter()

class Count(BaseHTTPRequestHandler):
    def do_GET(self):
        seen[self.path] += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(seen[self.path]).encode())

ThreadingHTTPServer(("0.0.0.0", 8080), Count).serve_forever()
"""
"""Answers how often each path was asked for."""


def _counter() -> dict[str, Any]:
    container = {"name": "main", "image": IMAGE, "command": [*PYTHON, COUNTER]}
    return {
        "metadata": {"name": "counter", "labels": {"app": "counter"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


def _counter_service() -> dict[str, Any]:
    return {"metadata": {"name": "counter"}, "spec": {"selector": {"app": "counter"}, "ports": [{"port": 8080}]}}


@pytest.fixture(scope="module")
def contract_cluster() -> "Iterator[Cluster]":
    """A namespace of its own, watched."""
    from surogate_bench_orchestrator.runtimes.kubernetes.api import Api
    from surogate_bench_orchestrator.runtimes.kubernetes.cluster import Cluster
    from surogate_bench_orchestrator.runtimes.kubernetes.connecting import connect

    if "KUBECONFIG" not in os.environ:
        pytest.skip("KUBECONFIG names no cluster")
    client = connect(None).client
    namespace = f"contract-{uuid.uuid4().hex[:8]}"
    api = Api(client)
    api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    api.create(f"/api/v1/namespaces/{namespace}/pods", _counter())
    api.create(f"/api/v1/namespaces/{namespace}/services", _counter_service())
    cluster = Cluster(api, namespace, "contract")
    cluster.start()
    cluster.wait_until_synced(30)
    yield cluster
    cluster.stop()
    api.delete(f"/api/v1/namespaces/{namespace}")


@pytest.fixture
def kubernetes_harness(contract_cluster: "Cluster", request: pytest.FixtureRequest) -> Iterator[object]:
    """The harness of test_runtime_contract.py over real pods of fake_service.py."""
    from surogate_bench_orchestrator.runtimes.kubernetes.runtime import KubernetesRuntime
    from surogate_bench_orchestrator.runtimes.kubernetes.settings import (
        ClusterSettings,
        HubSettings,
        StoreSettings,
        Workload,
    )

    contract = request.module
    workload = Workload(
        image=IMAGE,
        command=(*PYTHON, FAKE_SERVICE.read_text(encoding="utf-8")),
        env={"ATTEMPT_COUNTER": "http://counter:8080"},
    )
    settings = ClusterSettings(
        namespace=contract_cluster.namespace,
        instance="contract",
        store=StoreSettings(url=f"file:///tmp/store-{uuid.uuid4().hex}"),
        hub=HubSettings(enabled=False),
        trainer=workload,
        prepare=workload,
        model_server=workload,
        evaluator=workload,
        slots=2,
        termination_grace_s=1,
    )
    runtime = KubernetesRuntime(contract_cluster, settings, sweep=contract.SWEEP.name)
    yield contract.Harness(runtime, lambda: time.sleep(0.1), settings.store.url)
    for item in contract_cluster.of_sweep(contract.SWEEP.name):
        runtime.delete(item["metadata"]["name"])
