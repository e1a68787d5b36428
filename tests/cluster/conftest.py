"""A real cluster: the one that KUBECONFIG names; with the images that `make images` made on its nodes."""

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from surogate_bench.store import ObjectStore, open_store
from surogate_bench_orchestrator.adapters.kubernetes.api import Api
from surogate_bench_orchestrator.adapters.kubernetes.connecting import connect
from surogate_bench_orchestrator.resource.definition import definition

PATIENCE_S = 60.0
IMAGE_TAG = os.environ.get("SUROGATE_BENCH_IMAGE_TAG", "dev")
ROOT = Path(__file__).parents[2]
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/recipesweeps.bench.surogate.ai"


@pytest.fixture(scope="session")
def api() -> Api:
    """The cluster's API."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    return Api(connect(None).client)


@pytest.fixture(scope="session")
def recipesweeps(api: Api) -> None:
    """The cluster knows RecipeSweeps as the models define them."""
    api.apply(DEFINITION, definition(), manager="surogate-bench-tests")
    _until(lambda: _is_established(api), "the definition is established")


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"surogate-bench-test-{secrets.token_hex(4)}"
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


def _until(true: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for something.

    Raises:
        AssertionError: it did not come.
    """
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what}"
        time.sleep(0.2)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until something is true: ``until(condition, what, patience_s)``."""
    return _until


def _is_established(api: Api) -> bool:
    found = api.get(DEFINITION) or {}
    conditions = found.get("status", {}).get("conditions", [])
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


@dataclass(frozen=True, slots=True)
class Release:
    """An installed chart."""

    api: Api
    namespace: str
    name: str

    @property
    def sweeps(self) -> str:
        """API path of its sweeps."""
        return f"/apis/bench.surogate.ai/v1alpha1/namespaces/{self.namespace}/recipesweeps"

    @property
    def core(self) -> str:
        """API path of its namespace."""
        return f"/api/v1/namespaces/{self.namespace}"

    def cli(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``surogate-bench`` as a user would."""
        command = [sys.executable, "-m", "surogate_bench_orchestrator", *arguments]
        where = ["--on", "kubernetes", "--namespace", self.namespace]
        return subprocess.run([*command, *where], capture_output=True, text=True, timeout=timeout_s, check=False)

    def helm(self, *arguments: str) -> str:
        """Run helm in the release's namespace."""
        return helm(*arguments, "--namespace", self.namespace)

    def submit(self, name: str, spec: dict[str, Any]) -> None:
        """Apply a RecipeSweep."""
        resource = {
            "apiVersion": "bench.surogate.ai/v1alpha1",
            "kind": "RecipeSweep",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        self.api.apply(f"{self.sweeps}/{name}", resource, manager="surogate-bench-tests")

    def status(self, name: str) -> dict[str, Any]:
        """Status of a sweep; empty while it has none."""
        found = self.api.get(f"{self.sweeps}/{name}") or {}
        return dict(found.get("status") or {})

    def runs(self, name: str) -> dict[str, dict[str, Any]]:
        """Rows of a sweep's runs, by run."""
        return {row["name"]: row for row in self.status(name).get("runs") or ()}

    def finished(self, name: str) -> bool:
        """Whether a sweep is over, well or badly."""
        return self.status(name).get("phase") in {"Complete", "Failed", "Rejected"}

    def pods(self, **labels: str) -> list[dict[str, Any]]:
        """Pods with these labels; ``stage="train"`` means bench.surogate.ai/stage."""
        selector = ",".join(f"bench.surogate.ai/{name}={value}" for name, value in labels.items())
        return self.api.list(f"{self.core}/pods", labelSelector=selector)

    def events(self, reason: str) -> list[dict[str, Any]]:
        """Events with a reason, of both generations of the API's kinds."""
        return self.api.list(f"{self.core}/events", fieldSelector=f"reason={reason}")

    def kill(self, pod: dict[str, Any]) -> None:
        """Delete a pod without grace, as a lost node would."""
        path = f"{self.core}/pods/{pod['metadata']['name']}"
        kubectl("delete", "pod", pod["metadata"]["name"], "-n", self.namespace, "--grace-period=0", "--force")
        _until(lambda: self.api.get(path) is None, f"{path} is gone")

    @contextmanager
    def store(self) -> Iterator[ObjectStore]:
        """The bundled object store, through a port-forward."""
        found = self.api.list(f"{self.core}/services", labelSelector="app.kubernetes.io/component=object-store")
        service = found[0]["metadata"]["name"]
        secret = self.api.get(f"{self.core}/secrets/{service}")
        assert secret is not None
        credentials = {name: b64decode(value).decode() for name, value in secret["data"].items()}
        with port_forward(self.namespace, f"service/{service}", 7070) as port, pytest.MonkeyPatch.context() as patch:
            for name, value in (credentials | {"AWS_REGION": "us-east-1"}).items():
                patch.setenv(name, value)
            patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            yield open_store("s3://surogate-bench")


@contextmanager
def port_forward(namespace: str, target: str, port: int) -> Iterator[int]:
    """Forward a free local port to a port of a service or pod; yields the local one."""
    command = [_tool("kubectl"), "-n", namespace, "port-forward", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, line
            yield int(found.group(1))
        finally:
            process.kill()


def kubectl(*arguments: str) -> str:
    """Run kubectl."""
    return subprocess.run(
        [_tool("kubectl"), *arguments], capture_output=True, text=True, timeout=180, check=True
    ).stdout


def helm(*arguments: str) -> str:
    """Run helm; its error is the test's."""
    done = subprocess.run([_tool("helm"), *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr or done.stdout}"
    return done.stdout


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not on PATH")
    return path


@contextmanager
def installed(api: Api, namespace: str, *changes: str, name: str = "surogate-bench") -> Iterator[Release]:
    """Install the chart into a namespace, which enforces the restricted Pod Security Standard; uninstall it after."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.create("/api/v1/namespaces", {"metadata": {"name": namespace, "labels": labels}})
    values = ["--values", str(ROOT / "tests" / "cluster" / "values.yaml"), "--set", f"images.tag={IMAGE_TAG}"]
    values += [part for change in changes for part in ("--set", change)]
    helm("install", name, str(ROOT / "charts"), *values, "--namespace", namespace, "--wait", "--timeout", "5m")
    try:
        yield Release(api, namespace, name)
    finally:
        helm("uninstall", name, "--namespace", namespace, "--wait")
        api.delete(f"/api/v1/namespaces/{namespace}")


@pytest.fixture(scope="session")
def release(api: Api) -> Iterator[Release]:
    """The chart as a user installs it, its store on scratch space."""
    with installed(
        api, f"surogate-bench-{secrets.token_hex(4)}", "objectStore.bundled.persistence.enabled=false"
    ) as made:
        yield made


SMALL: dict[str, Any] = yaml.safe_load("""
model: {builtin: tiny-qwen3-en}
data:
  builtin: word-problems-ro
  train_size: 200
  test_size: 20
  validation_size: 10
  prompt: "Întrebare: {question}\\nRăspuns:"
training:
  max_steps: 60
  max_length: 512
  micro_batch_size: 2
  gradient_accumulation_steps: 1
  learning_rate: 4.0e-3
  eval_steps: 30
  checkpoint_steps: 10
recipes: [bf16, qfp8-bf16]
serving: {max_model_len: 512}
evaluation: {max_gen_toks: 64, evaluate_base: false}
""")
"""A sweep of a few minutes."""
