"""A gated model and a data set of a hub, through a shared cache; the hub is a stand-in in a pod."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_cluster.release import IMAGE_TAG, Install, Release, Small, Until
from real_cluster.tools import kubectl

from surogate_bench.results import PrepareResult
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api
from surogate_bench_trainer.embedded.word_problems import split

pytestmark = [pytest.mark.cluster, pytest.mark.exhaustive, pytest.mark.timeout(900)]

TOKEN, PORT, SWEEP, CLAIM = "hf_token-of-the-tests", 8000, "from-hub", "models"
ON_NODE = "/var/tmp"  # noqa: S108 - of a test cluster
SCRIPT = Path(__file__).parents[1] / "support" / "stand_ins" / "hub.py"
PODS = "/api/v1/namespaces/default/pods"
POD = """
metadata: {namespace: default}
spec:
  automountServiceAccountToken: false
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{name: main, resources: {requests: {cpu: 5m, memory: 32Mi}}}]
"""
START = """
model=$(python -c 'import surogate_bench; print(surogate_bench.__path__[0])')/builtin_models/tiny-qwen3-en
exec python /hub/hub_stand_in.py --port "$1" --token "$2" --model lab/tiny-qwen3="$model" --dataset lab/problems=/data
"""


def pod(name: str, container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load(POD)
    made["metadata"]["name"] = name
    made["spec"] |= spec
    made["spec"]["containers"][0] |= {"image": f"surogate-bench/orchestrator:{IMAGE_TAG}", **container}
    return made


def phase(api: Api, name: str) -> str:
    return str(((api.get(f"{PODS}/{name}") or {}).get("status") or {}).get("phase", ""))


@pytest.fixture(scope="module")
def hub(api: Api, until: Until) -> Iterator[tuple[str, str]]:
    """Name and address of the hub's pod."""
    name, maps = f"surogate-bench-test-hub-{secrets.token_hex(4)}", "/api/v1/namespaces/default/configmaps"
    files = {"hub_stand_in.py": SCRIPT.read_text(encoding="utf-8")}
    for part, size in (("train", 40), ("test", 8)):
        problems = split(part, language="ro", size=size, seed=0)
        lines = [json.dumps({"question": each.question, "answer": each.answer}) for each in problems]
        files[f"{part}.jsonl"] = "\n".join(lines)
    mounts = [
        {"name": "files", "mountPath": f"{'/data' if file.endswith('jsonl') else '/hub'}/{file}", "subPath": file}
        for file in files
    ]
    container = {"command": ["sh", "-c", START, "sh", str(PORT), TOKEN], "volumeMounts": mounts}
    api.create(maps, {"metadata": {"name": name}, "data": files})
    api.create(PODS, pod(name, container, volumes=[{"name": "files", "configMap": {"name": name}}]))
    try:
        until(lambda: phase(api, name) == "Running", "the hub runs")
        yield name, (api.get(f"{PODS}/{name}") or {})["status"]["podIP"]
    finally:
        api.delete(f"{PODS}/{name}")
        api.delete(f"{maps}/{name}")


@contextmanager
def folder_on(api: Api, node: str, until: Until) -> Iterator[str]:
    """An empty folder on a node; yields its path."""
    path = f"{ON_NODE}/surogate-bench-test-{secrets.token_hex(4)}"
    volume = {"name": "node", "hostPath": {"path": ON_NODE}}

    def do(program: str) -> None:
        name = f"surogate-bench-test-folder-{secrets.token_hex(4)}"
        container = {
            "command": ["python", "-c", program, path],
            "securityContext": {"runAsUser": 0},
            "volumeMounts": [{"name": "node", "mountPath": ON_NODE}],
        }
        api.create(PODS, pod(name, container, nodeName=node, volumes=[volume]))
        try:
            until(lambda: phase(api, name) == "Succeeded", f"{name} has ended")
        finally:
            api.delete(f"{PODS}/{name}")

    do("import os, sys; os.mkdir(sys.argv[1])")
    try:
        yield path
    finally:
        do("import shutil, sys; shutil.rmtree(sys.argv[1])")


@contextmanager
def shared_volume(api: Api, namespace: str, until: Until) -> Iterator[None]:
    """A claim on a folder of a node with GPUs, writable only by root: the pods get in by fsGroup."""
    node = next(
        item["metadata"]["name"]
        for item in api.list("/api/v1/nodes")
        if int(item["status"]["allocatable"].get("nvidia.com/gpu", 0)) and not item["spec"].get("taints")
    )
    name = f"surogate-bench-test-{secrets.token_hex(4)}"
    shape = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    with folder_on(api, node, until) as path:
        volume = {
            **shape, "capacity": {"storage": "1Gi"}, "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
        }  # fmt: skip
        claim = {**shape, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": name}
        api.create("/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": volume})
        api.create(claims, {"metadata": {"name": CLAIM}, "spec": claim})
        try:
            yield
        finally:
            api.delete(f"{claims}/{CLAIM}")
            until(lambda: api.get(f"{claims}/{CLAIM}") is None, "the claim is gone", 120)
            api.delete(f"/api/v1/persistentvolumes/{name}")


@pytest.fixture(scope="module")
def from_hub(api: Api, hub: tuple[str, str], install: Install, small: Small, until: Until) -> Iterator[Release]:
    """A release that may reach the hub's pod, in which a sweep of its model and data has ended."""
    _, address = hub
    release = install(
        *("hub.enabled=true", "hub.token.existingSecret=hub-token"),
        *("hub.cache.persistence.enabled=true", f"hub.cache.persistence.existingClaim={CLAIM}"),
        *(f"networkPolicy.hub.blocks[0].cidr={address}/32", f"networkPolicy.hub.ports[0]={PORT}"),
        *(f"{service}.env.HF_ENDPOINT=http://{address}:{PORT}" for service in ("trainer", "prepare", "modelServer")),
    )
    api.create(f"{release.core}/secrets", {"metadata": {"name": "hub-token"}, "stringData": {"token": TOKEN}})
    spec = small(
        recipes=["bf16", "qfp8-bf16"],
        model={"hub": "lab/tiny-qwen3"},
        data={"hub": "lab/problems", "train_size": 32, "validation_size": 8, "test_size": 8},
        training__max_steps=6,
    )
    with shared_volume(api, release.namespace, until):
        release.submit(SWEEP, spec)
        until(lambda: release.finished(SWEEP), "the sweep is over", 600)
        yield release
        release.remove(SWEEP)


def test_a_sweep_of_a_gated_model_and_hub_data_completes(from_hub: Release) -> None:
    status = from_hub.status(SWEEP)
    assert status.phase == "Complete", status
    with from_hub.store() as store:
        source = from_hub.results(store, SWEEP)["prepare"].require_result(PrepareResult).model_source
    name, _, commit = source.partition("@")
    assert name == "lab/tiny-qwen3"
    assert len(commit) == 40


def test_the_weights_are_downloaded_once_for_all_pods(from_hub: Release, hub: tuple[str, str]) -> None:
    assert from_hub.status(SWEEP).phase == "Complete"
    log = kubectl("logs", "-n", "default", hub[0]).splitlines()
    asked = [line.split('"', 1)[1] for line in log if "GET /lab" in line and "/model.safetensors " in line]
    whole = [line for line in asked if line.endswith('" 200 -')]  # vLLM reads the header besides, which is a part
    assert len(whole) == 1, asked


def test_the_token_is_in_no_log(from_hub: Release) -> None:
    logs = [from_hub.kubectl("logs", each["metadata"]["name"]) for each in from_hub.pods(sweep=SWEEP)]
    assert logs
    assert not any(TOKEN in log for log in logs)
