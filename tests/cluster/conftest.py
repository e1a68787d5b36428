"""A real cluster: the one that KUBECONFIG names; with the images that `make images` made on its nodes."""

import copy
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from surogate_bench.layout import SweepLayout, manifest_key
from surogate_bench.manifest import Manifest, read_manifest
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


@pytest.fixture(scope="session")
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

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the release's namespace."""
        return kubectl(*arguments, "--namespace", self.namespace)

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

    def state(self, name: str, run: str) -> str:
        """State of a run, or of a service such as "model server"; empty while it is not known."""
        status = self.status(name)
        rows = (*(status.get("runs") or ()), *(status.get("services") or ()))
        return next((str(row["state"]) for row in rows if row["name"] == run), "")

    def layout(self, name: str) -> SweepLayout:
        """Where a sweep's results lie in the store, once it is admitted."""
        _until(lambda: "specHash" in self.status(name), f"{name} is admitted")
        return SweepLayout(name, self.status(name)["specHash"])

    def results(self, store: ObjectStore, name: str) -> dict[str, Manifest]:
        """Manifests of a sweep's finished stages, by "prepare" or "<run>/<stage>"."""
        root = self.layout(name).root
        ending = manifest_key("")
        prefixes = [info.key.removesuffix(ending) for info in store.list(root) if info.key.endswith(ending)]
        short = {prefix.removeprefix(f"{root}/").removeprefix("runs/"): prefix for prefix in prefixes}
        found = {stage: read_manifest(store, prefix) for stage, prefix in short.items()}
        return {stage: manifest for stage, manifest in found.items() if manifest}

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

    def leader(self) -> dict[str, Any]:
        """Pod of the controller that leads."""
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/surogate-bench-controller"
        holder = (self.api.get(lease) or {})["spec"]["holderIdentity"]
        return next(pod for pod in self.controllers() if holder.startswith(pod["metadata"]["name"]))

    def controllers(self) -> list[dict[str, Any]]:
        """Pods of the controller."""
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component=orchestrator"
        return self.api.list(f"{self.core}/pods", labelSelector=selector)

    def change(self, name: str, **spec: Any) -> None:
        """Change what may be changed of a sweep."""
        self.api.patch(f"{self.sweeps}/{name}", {"spec": spec})

    def owned(self, name: str) -> list[str]:
        """Everything of a sweep that is in the cluster, as <kind>/<name>."""
        selector = f"bench.surogate.ai/sweep={name}"
        kinds = {"jobs": "/apis/batch/v1", "deployments": "/apis/apps/v1", "services": "/api/v1", "pods": "/api/v1"}
        return [
            f"{kind}/{item['metadata']['name']}"
            for kind, group in kinds.items()
            for item in self.api.list(f"{group}/namespaces/{self.namespace}/{kind}", labelSelector=selector)
        ]

    def active(self, name: str) -> list[str]:
        """What of a sweep holds something or may still run: its server, and pods that have not ended."""
        ended = {
            f"pods/{pod['metadata']['name']}"
            for pod in self.pods(sweep=name)
            if pod["status"].get("phase") in {"Succeeded", "Failed"}
        }
        return [each for each in self.owned(name) if not each.startswith("jobs/") and each not in ended]

    def remove(self, name: str) -> None:
        """Delete a sweep, and see everything of it go."""
        self.api.delete(f"{self.sweeps}/{name}")
        _until(lambda: not self.owned(name), f"everything of {name} is gone", 120)

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[int]:
        """Forward a free local port to a port of a service or pod, such as ``pod/prometheus``; yields the local one."""
        with port_forward(self.namespace, target, port) as local:
            yield local

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
    try:
        helm("install", name, str(ROOT / "charts"), *values, "--namespace", namespace, "--wait", "--timeout", "5m")
        yield Release(api, namespace, name)
    finally:
        helm("uninstall", name, "--namespace", namespace, "--wait", "--ignore-not-found")
        api.delete(f"/api/v1/namespaces/{namespace}")


@pytest.fixture(scope="session")
def release(api: Api) -> Iterator[Release]:
    """The chart as a user installs it, its store on scratch space."""
    with installed(
        api, f"surogate-bench-{secrets.token_hex(4)}", "objectStore.bundled.persistence.enabled=false"
    ) as made:
        yield made


@pytest.fixture(scope="module")
def install(api: Api) -> Iterator[Callable[..., Release]]:
    """Install the chart once more, until the module ends: ``install("trainer.image.tag=other", name="second")``."""
    with ExitStack() as made:
        yield lambda *changes, **name: made.enter_context(
            installed(api, f"surogate-bench-{secrets.token_hex(4)}", "orchestrator.replicas=1", *changes, **name)
        )


@pytest.fixture(scope="session")
def small() -> Callable[..., dict[str, Any]]:
    """A small sweep's spec, changed: ``small(recipes=["bf16"], training__max_steps=9)``."""

    def made(**changes: Any) -> dict[str, Any]:
        spec = copy.deepcopy(SMALL)
        for path, value in changes.items():
            *sections, last = path.split("__")
            target = spec
            for section in sections:
                target = target.setdefault(section, {})
            target[last] = value
        return spec

    return made


@dataclass(frozen=True, slots=True)
class StandIn:
    """A pod of the orchestrator's image that only listens and connects."""

    namespace: str
    name: str
    ip: str

    def connects(self, *targets: tuple[str, int]) -> list[bool]:
        """Try to connect to hosts' ports; says which it could."""
        words = [json.dumps(targets)]
        said = kubectl("-n", self.namespace, "exec", self.name, "--", *_PYTHON, _CONNECT, *words)
        return list(json.loads(said))


_PYTHON = ("/opt/venv/bin/python", "-P", "-c")
_LISTEN = """
import asyncio, sys
async def main(ports):
    servers = [await asyncio.start_server(lambda _, writer: writer.close(), port=port) for port in ports]
    await asyncio.sleep(3600)
asyncio.run(main([int(port) for port in sys.argv[1:]]))
"""
_CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def connects(target):
    try:
        socket.create_connection(target, timeout=2).close()
    except OSError:
        return False
    return True
targets = [tuple(target) for target in json.loads(sys.argv[1])]
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(list(pool.map(connects, targets))))
"""


@contextmanager
def standing_in(api: Api, namespace: str, name: str, labels: dict[str, str], *ports: int) -> Iterator[StandIn]:
    """Run a pod with these labels that listens on these ports."""
    pod: dict[str, Any] = yaml.safe_load("""
        spec:
          automountServiceAccountToken: false
          enableServiceLinks: false
          terminationGracePeriodSeconds: 0
          securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
          containers:
            - name: main
              resources: {requests: {cpu: 5m, memory: 16Mi}, limits: {memory: 128Mi}}
              securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    """)
    image = f"surogate-bench/orchestrator:{IMAGE_TAG}"
    pod["spec"]["containers"][0] |= {"image": image, "command": [*_PYTHON, _LISTEN, *map(str, ports)]}
    path = f"/api/v1/namespaces/{namespace}/pods"
    api.create(path, {"metadata": {"name": name, "labels": labels}, **pod})
    try:
        _until(lambda: (api.get(f"{path}/{name}") or {})["status"]["phase"] == "Running", f"pod {name} runs")
        yield StandIn(namespace, name, (api.get(f"{path}/{name}") or {})["status"]["podIP"])
    finally:
        api.delete(f"{path}/{name}")


@pytest.fixture(scope="module")
def stand_in(api: Api) -> Iterator[Callable[..., StandIn]]:
    """Run a pod until the module's end: ``stand_in(namespace, name, labels, 8000, 8100)``."""
    with ExitStack() as made:
        yield lambda *arguments: made.enter_context(standing_in(api, *arguments))


@pytest.fixture(scope="session")
def enforced(api: Api) -> Iterator[None]:
    """The network plug-in enforces NetworkPolicies, as a try shows; skips where it does not."""
    name = f"surogate-bench-test-{secrets.token_hex(4)}"
    policies = f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies"
    closed = {"metadata": {"name": "closed"}, "spec": {"podSelector": {"matchLabels": {"is": "closed"}}}}
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        with (
            standing_in(api, name, "closed", {"is": "closed"}, 8000) as target,
            standing_in(api, name, "other", {}) as other,
        ):
            _until(lambda: other.connects((target.ip, 8000))[0], "a pod reaches another")
            api.create(policies, closed)
            deadline = time.monotonic() + 20
            while other.connects((target.ip, 8000))[0]:
                if time.monotonic() > deadline:
                    pytest.skip("the cluster's network plug-in does not enforce NetworkPolicies")
        yield
    finally:
        api.delete(f"/api/v1/namespaces/{name}")


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
