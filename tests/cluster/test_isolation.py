"""Which pods reach each other: pods of a release that only listen and connect, with the labels of its policies."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from real_cluster.pods import StandIn
from real_cluster.release import Release

from surogate_bench.contract import CONTROLLER_PORT, METRICS_PORT, SERVER_PORT, VLLM_PORT
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import COMPONENT, INSTANCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.usefixtures("enforced")]

NAME = "app.kubernetes.io/name"
STORE_PORT, API_PORT = 7070, 443
STORE = {"store", "store by name"}
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Scene:
    """A release with one pod of each kind in it, and where things are."""

    pods: dict[str, StandIn]
    places: dict[str, tuple[str, int]]

    def reach(self, pod: str) -> set[str]:
        """Names of the places that a pod reaches, itself left out."""
        places = {place: target for place, target in self.places.items() if target[0] != self.pods[pod].ip}
        said = self.pods[pod].connects(*places.values())
        return {place for place, reached in zip(places, said, strict=True) if reached}

    def check(self, pod: str, expected: set[str]) -> None:
        """Check what a pod reaches; a policy takes a moment to hold for a new pod."""
        deadline = time.monotonic() + PATIENCE_S
        while (reached := self.reach(pod)) != expected:
            assert time.monotonic() < deadline, f"{pod}: reaches {sorted(reached)}, should reach {sorted(expected)}"


@pytest.fixture(scope="module")
def scene(release: Release, stand_in: Callable[..., StandIn]) -> Scene:
    def of(component: str, instance: str = release.name) -> dict[str, str]:
        return {NAME: "surogate-bench", INSTANCE: instance, COMPONENT: component}

    labels = {
        "model-server": of("model-server"),
        "evaluator": of("evaluator"),
        "trainer": of("trainer"),
        "evaluator of another release": of("evaluator", "another"),
        "prometheus": {NAME: "prometheus"},
        "stranger": {},
    }
    ports = {"model-server": (SERVER_PORT, VLLM_PORT, METRICS_PORT), "trainer": (METRICS_PORT,), "stranger": (8000,)}
    pods = {
        pod: stand_in(release.namespace, pod.replace(" ", "-"), label, *ports.get(pod, ()))
        for pod, label in labels.items()
    }
    return Scene(pods, _places(release, {pod: each.ip for pod, each in pods.items()}))


def _places(release: Release, address: dict[str, str]) -> dict[str, tuple[str, int]]:
    store, controller = _service(release, "object-store"), _service(release, "orchestrator")
    api_server = release.api.get("/api/v1/namespaces/default/services/kubernetes")
    return {
        "vLLM": (address["model-server"], VLLM_PORT),
        "adapter API": (address["model-server"], SERVER_PORT),
        "server metrics": (address["model-server"], METRICS_PORT),
        "trainer metrics": (address["trainer"], METRICS_PORT),
        "store": (store["spec"]["clusterIP"], STORE_PORT),
        "store by name": (f"{store['metadata']['name']}.{release.namespace}.svc", STORE_PORT),
        "controller": (controller["spec"]["clusterIP"], CONTROLLER_PORT),
        "another pod": (address["stranger"], 8000),
        "API server": (api_server["spec"]["clusterIP"], API_PORT),
    }


def _service(release: Release, component: str) -> dict[str, Any]:
    selector = f"{INSTANCE}={release.name},{COMPONENT}={component}"
    (found,) = release.api.list(f"{release.core}/services", labelSelector=selector)
    return dict(found)


def test_the_adapter_api_is_open_to_evaluators_of_the_release(scene: Scene) -> None:
    scene.check("evaluator", {"vLLM", "adapter API", *STORE})


def test_a_pod_without_labels_reaches_nothing_of_the_release(scene: Scene) -> None:
    scene.check("stranger", {"API server"})


def test_labels_of_another_release_open_nothing(scene: Scene) -> None:
    scene.check("evaluator of another release", {"another pod", "API server"})


@pytest.mark.parametrize("pod", ["trainer", "model-server"])
def test_trainers_and_servers_reach_names_and_the_store_and_nothing_else(scene: Scene, pod: str) -> None:
    scene.check(pod, STORE)


def test_prometheus_reaches_metrics_and_nothing_else_of_the_release(scene: Scene) -> None:
    scene.check("prometheus", {"server metrics", "trainer metrics", "controller", "another pod", "API server"})
