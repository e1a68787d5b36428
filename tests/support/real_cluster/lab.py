"""A controller without its chart: processes here, a real API server, and a stand-in for the nodes that pods run on."""

import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from finished_stages import manifest_of
from kubernetes.client import ApiException, CoreV1Api
from ports import free_port
from real_cluster.tools import PATIENCE_S
from sweeps import small_document

from surogate_bench.errors import BenchError
from surogate_bench.layout import manifest_key
from surogate_bench.stages.requests import CheckRequest, EvaluateRequest, PrepareRequest, read_request
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.resource import API_VERSION, KIND, PLURAL
from surogate_bench_orchestrator.resource.status import ConditionType, StatusRow, SweepStatus
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import REQUEST, STAGE, SWEEP, TASK

SPEC = {
    field: value
    for field, value in small_document(recipes=["bf16", "fp8"], placement="phased").items()
    if field != "name"
}
STRICT = {"accuracy": 0.625, "stderr": 0.18}
"""Of every evaluation."""

_NOT_ENDED = "status.phase!=Succeeded,status.phase!=Failed"


class Node:
    """Stands for a kubelet: takes every pod of a namespace, and ends those of Jobs with their result in the store."""

    def __init__(self, api: Api, namespace: str, store: ObjectStore) -> None:
        self._api = api
        self._core = f"/api/v1/namespaces/{namespace}"
        self._store = store
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.holding: set[str] = set()
        """Stages whose pods run on until this is changed."""
        self.failing: dict[str, str] = {}
        """Termination messages of pods that end badly, by a part of the task's name."""
        self.started: list[tuple[str, str]] = []
        """Task and uid of every pod that was started, in order."""
        self.results: list[str] = []

    def __enter__(self) -> "Node":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_S)

    def pods_of(self, part: str) -> list[str]:
        return [uid for task, uid in self.started if part in task]

    def _run(self) -> None:
        while not self._stopping.wait(0.2):
            with suppress(BenchError):
                for pod in self._api.list(f"{self._core}/pods", fieldSelector=_NOT_ENDED):
                    with suppress(BenchError, ApiException):
                        self._handle(pod)

    def _handle(self, pod: dict[str, Any]) -> None:
        metadata, labels = pod["metadata"], pod["metadata"].get("labels", {})
        path = f"{self._core}/pods/{metadata['name']}"
        if "deletionTimestamp" in metadata:
            CoreV1Api(self._api.client).delete_namespaced_pod(
                metadata["name"], metadata["namespace"], grace_period_seconds=0
            )
        elif not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": "nowhere"}
            self._api.create(f"{path}/binding", {"metadata": {"name": metadata["name"]}, "target": target})
            self._report(path, "Running", {"running": {"startedAt": _now()}})
            self.started.append((labels[TASK], metadata["uid"]))
        elif pod["status"]["phase"] == "Running" and labels[STAGE] not in {"serve", *self.holding}:
            why = next((text for part, text in self.failing.items() if part in labels[TASK]), None)
            if why is None:
                self._publish(metadata["annotations"][REQUEST])
            ended = {"exitCode": 2 if why else 0, "finishedAt": _now(), "message": why or ""}
            self._report(path, "Failed" if why else "Succeeded", {"terminated": ended})

    def _report(self, path: str, phase: str, state: dict[str, Any]) -> None:
        ready = str(phase == "Running")
        conditions = [
            {"type": kind, "status": status, "lastTransitionTime": _now()}
            for kind, status in {
                "PodScheduled": "True", "Initialized": "True", "ContainersReady": ready, "Ready": ready,
            }.items()
        ]  # fmt: skip
        pod = self._api.get(path) or {}
        containers = [
            {
                "name": each["name"], "image": each["image"], "imageID": "none", "ready": phase == "Running",
                "restartCount": 0, "state": state,
            }
            for each in pod["spec"]["containers"]
        ]  # fmt: skip
        status = {"phase": phase, "conditions": conditions, "containerStatuses": containers, "startTime": _now()}
        self._api.patch(f"{path}/status", {"status": status})

    def _publish(self, request_json: str) -> None:
        file = Path(f"{self._store.url.removeprefix('file://')}/request.json")
        file.write_text(request_json)
        request = read_request(file)
        file.unlink()
        laid_out = plan(request.sweep, request.store)
        if isinstance(request, PrepareRequest):
            prefix = laid_out.layout.prepare
        elif isinstance(request, CheckRequest):
            prefix = laid_out.layout.check(request.subject)
        elif isinstance(request, EvaluateRequest):
            prefix = laid_out.layout.eval(request.run)
            assert request.server_url == f"http://{laid_out.server.name}.{self._core.rsplit('/')[-1]}.svc:8100"
        else:
            assert request.kind == "train"
            prefix = laid_out.layout.train(f"{request.recipe}-s{request.seed}")
        scored = {"strict": STRICT} if isinstance(request, EvaluateRequest) else {}
        manifest = manifest_of(request, **scored)
        if self._store.create(manifest_key(prefix), manifest.model_dump_json().encode()):
            self.results.append(prefix)


class Replica:
    """One controller process."""

    def __init__(self, config: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "surogate_bench_orchestrator", "controller"]
        self.process = subprocess.Popen([*command, "--config", str(config), "--port", str(self.port)])

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    @property
    def leads(self) -> bool:
        return b"surogate_bench_leader 1.0" in self.get("/metrics")[1]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


class Lab:
    """A namespace with a store, a node and as many controllers as a test starts."""

    def __init__(self, api: Api, namespace: str, folder: Path) -> None:
        self.api, self.namespace = api, namespace
        self.store = open_store(str(folder / "store"))
        self.path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
        self.jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.node = Node(api, namespace, self.store)
        self.replicas: list[Replica] = []
        self.config = folder / "controller.yaml"
        self.write_config(self.store.url)

    def write_config(self, store: str, slots: int = 2) -> None:
        workload = {"image": "example/none:1"}
        settings = {
            "namespace": self.namespace, "instance": "lab", "store": {"url": store}, "trainer": workload,
            "prepare": workload, "model_server": workload, "evaluator": workload, "hub": {"enabled": False},
            "scheduling": {"node_selector": {"surogate-bench-test": "nowhere"}}, "slots": slots,
            "unschedulable_grace_s": 3600, "termination_grace_s": 1,
        }  # fmt: skip
        self.config.write_text(yaml.safe_dump(settings))

    def start(self) -> Replica:
        self.replicas.append(Replica(self.config))
        return self.replicas[-1]

    def add(self, name: str = "small", **spec: Any) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name},
            "spec": SPEC | {"reuse": False} | spec,
        }
        assert self.api.create(self.path, body)

    def status(self, name: str = "small") -> SweepStatus:
        return SweepStatus.of(self.api.get(f"{self.path}/{name}") or {})

    def row(self, run: str, name: str = "small") -> StatusRow:
        return next(row for row in self.status(name).rows if row.name == run)

    def is_complete(self, name: str = "small") -> bool:
        return self.status(name).is_true(ConditionType.COMPLETE)

    def events(self, name: str = "small") -> list[str]:
        found = self.api.list(f"/api/v1/namespaces/{self.namespace}/events")
        return sorted(event["reason"] for event in found if event["involvedObject"].get("name") == name)

    def owned(self) -> list[str]:
        kinds = ("batch/v1", "jobs"), ("apps/v1", "deployments")
        paths = [f"/apis/{group}/namespaces/{self.namespace}/{kind}" for group, kind in kinds]
        core = [f"/api/v1/namespaces/{self.namespace}/{kind}" for kind in ("services", "pods")]
        items = [item for path in (*paths, *core) for item in self.api.list(path, labelSelector=SWEEP)]
        return [item["metadata"]["name"] for item in items]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
