"""``surogate-bench … --on kubernetes`` on a real API server; the test plays the controller."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_cluster.release import Until
from real_cluster.tools import PATIENCE_S
from sweeps import small_document

from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.report import build_report
from surogate_bench_orchestrator.resource import API_VERSION, PLURAL
from surogate_bench_orchestrator.resource.model import resource_of
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("recipesweeps")]

SPEC = small_document()
PYTHONS = {"surogate-bench/orchestrator": "/opt/venv/bin/python", "library/python:3.11-slim": "python"}
"""Images with Python in them, and where."""

CONTROLLER = {"app.kubernetes.io/name": "surogate-bench", "app.kubernetes.io/component": "orchestrator"}
RUNNING_ROW = {"name": "bf16-s0", "state": "Training", "step": 1, "total": 2, "loss": 1.5}


def status(phase: str, *rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"observedGeneration": 1, "phase": phase, "runs": list(rows), **more}


COMPLETE = status("Complete", {"name": "base", "state": "Succeeded"}, {"name": "bf16-s0", "state": "Succeeded"})


@dataclass
class Lab:
    """A namespace, a folder with a sweep file, and the command line."""

    api: Api
    namespace: str
    folder: Path
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    @property
    def sweep(self) -> Path:
        return self.folder / "sweep.yaml"

    @property
    def path(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/{PLURAL}/small"

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start the command line in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "surogate_bench_orchestrator", *arguments, "--on", "kubernetes",
             "--namespace", self.namespace],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def call(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command line; returns exit code, standard output and standard error."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def submit(self) -> None:
        self.api.apply(self.path, resource_of(parse_sweep(SPEC), self.namespace), manager="test")

    def report_on(self, status: dict[str, Any]) -> None:
        """Write a status, as the controller does."""
        assert self.api.patch(f"{self.path}/status", {"status": status})

    def pod(self, name: str, labels: dict[str, str], image: str = "no-such-image:none", **container: Any) -> None:
        """Make a pod; with the image that is not there it never starts, but is there."""
        restricted = {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
            "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        main = {
            "name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "securityContext": restricted,
            **container,
        }  # fmt: skip
        spec = {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [main],
            "volumes": [{"name": "reports", "configMap": {"name": "reports", "optional": True}}],
        }  # fmt: skip
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": spec,
        }
        assert self.api.create(f"/api/v1/namespaces/{self.namespace}/pods", body)

    def pod_is(self, name: str, condition: Callable[[dict[str, Any]], object]) -> bool:
        pod = self.api.get(f"/api/v1/namespaces/{self.namespace}/pods/{name}") or {}
        return bool(condition(pod.get("status", {})))


@pytest.fixture
def lab(api: Api, namespace: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(api, namespace, tmp_path)
    made.sweep.write_text(yaml.safe_dump(SPEC))
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def controller(lab: Lab) -> Lab:
    """A controller's pod is there, though it never starts."""
    lab.pod("controller", CONTROLLER)
    return lab


@pytest.fixture
def python_image(api: Api) -> tuple[str, str]:
    """An image with Python on every node, and its interpreter."""
    nodes = [
        {name for image in node["status"].get("images") or () for name in image.get("names") or ()}
        for node in api.list("/api/v1/nodes")
    ]
    for name in sorted(set.intersection(*nodes)) if nodes else ():
        for part, interpreter in PYTHONS.items():
            if part in name and "@" not in name:
                return name, interpreter
    pytest.skip("no image with Python is on every node")


@pytest.fixture
def serving(lab: Lab, python_image: tuple[str, str], until: Callable[..., None]) -> Lab:
    """A pod serves the report of the sweep as the controller does."""
    image, interpreter = python_image
    data = {"small.tar": base64.b64encode(report(lab.folder)).decode()}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "reports"}, "binaryData": data}
    assert lab.api.create(f"/api/v1/namespaces/{lab.namespace}/configmaps", config_map)
    probe = {"httpGet": {"path": "/reports/", "port": 8080}, "periodSeconds": 1}
    lab.pod(
        "controller", CONTROLLER, image, command=[interpreter, "-m", "http.server", "--directory", "/srv", "8080"],
        readinessProbe=probe, volumeMounts=[{"name": "reports", "mountPath": "/srv/reports"}],
    )  # fmt: skip
    until(
        lambda: lab.pod_is("controller", lambda now: any(
            each["type"] == "Ready" and each["status"] == "True" for each in now.get("conditions", ())
        )),
        "the controller's pod is ready", 120.0,
    )  # fmt: skip
    return lab


def report(folder: Path) -> bytes:
    summary = build_report(open_store(str(folder / "store")), parse_sweep(SPEC), {}).summary
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in {"summary.json": summary.model_dump_json().encode(), "big.bin": os.urandom(400_000)}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return raw.getvalue()


def test_a_sweep_is_submitted_followed_and_its_report_fetched(serving: Lab, until: Callable[..., None]) -> None:
    process = serving.start("run", "sweep.yaml", "--report", "report")
    until(lambda: serving.api.get(serving.path), "the sweep is submitted")
    stored = serving.api.get(serving.path) or {}
    assert {each["manager"] for each in stored["metadata"]["managedFields"]} == {"surogate-bench-cli"}
    assert process.stdout is not None
    serving.report_on(status("Running", {"name": "base", "state": "Pending"}, RUNNING_ROW))
    assert "bf16-s0: Training  1/2  loss 1.500" in process.stdout.readline()
    serving.report_on(COMPLETE)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert "Base model" in out
    assert (serving.folder / "report" / "big.bin").stat().st_size == 400_000
    assert json.loads((serving.folder / "report" / "summary.json").read_bytes())["name"] == "small"


def test_a_finished_sweep_is_reported_again_by_file_or_by_name(serving: Lab) -> None:
    serving.submit()
    serving.report_on(COMPLETE)
    code, out, _ = serving.call("run", "sweep.yaml", "--json")
    assert code == 0
    assert json.loads(out)["phase"] == "Complete"
    for sweep in ("sweep.yaml", "small"):
        code, out, err = serving.call("report", sweep, "--output", f"of-{sweep}")
        assert (code, err) == (0, "")
        assert (serving.folder / f"of-{sweep}" / "summary.json").is_file()


def test_a_report_that_is_not_there_is_an_error(serving: Lab) -> None:
    body = resource_of(parse_sweep(SPEC | {"name": "other"}), serving.namespace)
    serving.api.apply(serving.path.replace("/small", "/other"), body, manager="test")
    code, _, err = serving.call("report", "other")
    assert code == 1
    assert "/reports/other.tar" in err
    assert "404" in err


def test_logs_come_from_the_pods_of_the_run(serving: Lab, python_image: tuple[str, str], until: Until) -> None:
    image, interpreter = python_image
    serving.submit()
    run = {"bench.surogate.ai/sweep": "small", "bench.surogate.ai/run": "bf16-s0"}
    train = run | {"bench.surogate.ai/stage": "train"}
    serving.pod("first", train, image, command=[interpreter, "-c", "print('one'); print('two')"])
    until(lambda: serving.pod_is("first", lambda now: now.get("phase") == "Succeeded"), "the pod has ended", 120.0)
    serving.pod("never", run | {"bench.surogate.ai/stage": "eval"})
    code, out, _ = serving.call("logs", "small", "bf16-s0", "--tail", "1")
    assert code == 0
    assert out.splitlines()[:3] == ["==> first (train) <==", "two", "==> never (eval) <=="]
    assert "no log" in out.splitlines()[3]


def test_an_interrupted_follower_leaves_the_sweep_in_the_cluster(controller: Lab, until: Callable[..., None]) -> None:
    process = controller.start("run", "sweep.yaml")
    until(lambda: controller.api.get(controller.path), "the sweep is submitted")
    controller.report_on(status("Running", RUNNING_ROW))
    assert process.stdout is not None
    assert "Training" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "continues in the cluster" in err
    assert controller.api.get(controller.path)


def test_a_sweep_that_is_not_admitted_is_bad_input(controller: Lab) -> None:
    controller.submit()
    refusal = {
        "type": "Admitted", "status": "False", "reason": "Invalid", "message": "spec.recipes: odd. Correct it.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    controller.report_on(status("Rejected", conditions=[refusal]))
    code, _, err = controller.call("run", "sweep.yaml")
    assert code == 2
    assert "spec.recipes: odd. Correct it." in err


def test_another_sweep_of_that_name_is_left_alone(controller: Lab) -> None:
    controller.submit()
    controller.sweep.write_text(yaml.safe_dump(SPEC | {"seeds": [7]}))
    code, _, err = controller.call("run", "sweep.yaml")
    assert code == 2
    assert "kubectl delete recipesweep small" in err
    assert (controller.api.get(controller.path) or {})["spec"]["seeds"] == [0]


def test_a_sweep_that_was_applied_by_others_is_followed(controller: Lab) -> None:
    controller.submit()
    controller.report_on(status("Running", RUNNING_ROW))
    code, out, _ = controller.call("status", "small")
    assert code == 0
    assert "small: 0 of 1 runs ended (Running)" in out


def test_a_namespace_without_a_controller_is_bad_input(lab: Lab) -> None:
    code, _, err = lab.call("run", "sweep.yaml")
    assert code == 2
    assert "helm install surogate-bench" in err
    assert lab.api.get(lab.path) is None


def test_a_sweep_that_is_not_there_is_bad_input(lab: Lab) -> None:
    code, _, err = lab.call("status", "small")
    assert code == 2
    assert f"no such sweep in namespace {lab.namespace}" in err
