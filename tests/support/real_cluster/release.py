"""An installed chart, and what tests do with it."""

import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from real_cluster.tools import helm, kubectl, port_forward, until

from surogate_bench.layout import SweepLayout, manifest_key
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import read_manifest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_orchestrator.resource.status import Condition, ConditionType, StatusRow, SweepStatus
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api

IMAGE_TAG = os.environ.get("SUROGATE_BENCH_IMAGE_TAG", "dev")
ROOT = Path(__file__).parents[3]


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
            "spec": {"reuse": False} | spec,  # the tests share a store, and each wants its own training
        }
        self.api.apply(f"{self.sweeps}/{name}", resource, manager="surogate-bench-tests")

    def status(self, name: str) -> SweepStatus:
        """Status of a sweep; empty while it has none."""
        return SweepStatus.of(self.api.get(f"{self.sweeps}/{name}") or {})

    def runs(self, name: str) -> dict[str, StatusRow]:
        """Rows of a sweep's runs, by run."""
        return {row.name: row for row in self.status(name).runs}

    def state(self, name: str, run: str) -> str:
        """State of a run, or of a service such as "model server"; empty while it is not known."""
        return next((row.state for row in self.status(name).rows if row.name == run), "")

    def layout(self, name: str) -> SweepLayout:
        """Where a sweep's results lie in the store, once it is admitted."""
        until(lambda: self.status(name).spec_hash, f"{name} is admitted")
        return SweepLayout(name, self.status(name).spec_hash)

    def results(self, store: ObjectStore, name: str) -> dict[str, Manifest]:
        """Manifests of a sweep's finished stages, by "prepare" or "<run>/<stage>"."""
        root = self.layout(name).root
        ending = manifest_key("")
        prefixes = [info.key.removesuffix(ending) for info in store.list(root) if info.key.endswith(ending)]
        short = {prefix.removeprefix(f"{root}/").removeprefix("runs/"): prefix for prefix in prefixes}
        found = {stage: read_manifest(store, prefix) for stage, prefix in short.items()}
        return {stage: manifest for stage, manifest in found.items() if manifest}

    def admitted(self, name: str) -> Condition | None:
        """The condition Admitted of a sweep; None while there is none."""
        return self.status(name).condition(ConditionType.ADMITTED)

    def finished(self, name: str) -> bool:
        """Whether a sweep is over, well or badly."""
        return self.status(name).phase in {"Complete", "Failed", "Rejected"}

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
        until(lambda: self.api.get(path) is None, f"{path} is gone")

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
        until(lambda: not self.owned(name), f"everything of {name} is gone", 120)

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
def installed(
    api: Api, namespace: str, *changes: str, name: str = "surogate-bench", ready: bool = True
) -> Iterator[Release]:
    """Install the chart into a namespace, which enforces the restricted Pod Security Standard; uninstall it after.

    Args:
        api: For the namespace.
        namespace: Made for it.
        changes: Values, for example ``trainer.gpus=2``.
        name: Of the release.
        ready: Whether to wait until everything of it is ready.
    """
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.create("/api/v1/namespaces", {"metadata": {"name": namespace, "labels": labels}})
    values = ["--values", str(ROOT / "tests" / "cluster" / "values.yaml"), "--set", f"images.tag={IMAGE_TAG}"]
    values += [part for change in changes for part in ("--set", change)]
    try:
        wait = ("--wait", "--timeout", "5m") if ready else ()
        helm("install", name, str(ROOT / "charts"), *values, "--namespace", namespace, *wait)
        yield Release(api, namespace, name)
    finally:
        helm("uninstall", name, "--namespace", namespace, "--wait", "--ignore-not-found")
        api.delete(f"/api/v1/namespaces/{namespace}")


Install = Callable[..., Release]
Until = Callable[..., None]
Small = Callable[..., dict[str, Any]]
"""Types of the fixtures of that name."""
