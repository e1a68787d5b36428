"""Pods that do not get to run, or not for long enough: every sweep ends all the same, and says why."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from real_cluster.pods import standing_in
from real_cluster.release import Install, Release, Small, Until

from surogate_bench_orchestrator.resource.status import ConditionType
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

GPU = "nvidia.com/gpu"
PULL = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"}


@pytest.fixture
def older_gpus(api: Api) -> Iterator[None]:
    """GPUs of the cluster pretend to be of compute capability 8.0, which has no FP8."""
    labels = {
        f"/api/v1/nodes/{node['metadata']['name']}": {
            key: value
            for key, value in node["metadata"].get("labels", {}).items()
            if key.startswith("nvidia.com/gpu.compute.")
        }
        for node in api.list("/api/v1/nodes")
    }
    pretended = {"nvidia.com/gpu.compute.major": "8", "nvidia.com/gpu.compute.minor": "0"}
    for path, before in labels.items():
        if before:
            api.patch(path, {"metadata": {"labels": pretended}})
    try:
        yield
    finally:
        for path, before in labels.items():
            if before:
                api.patch(path, {"metadata": {"labels": before}})


@pytest.mark.usefixtures("older_gpus")
def test_a_recipe_that_no_node_can_run_is_skipped_and_the_others_are_run(
    release: Release, small: Small, until: Until
) -> None:
    name = "incapable"
    spec = small(recipes=["bf16", "fp8"], training__max_steps=20)
    release.submit(name, spec | {"scheduling": {"compute_capability": "required"}})
    until(lambda: release.state(name, "fp8-s0") == "Skipped", "fp8 is skipped")
    row = release.runs(name)["fp8-s0"]
    assert row.reason == "NoCapableNode"
    assert "affinity" in row.message
    until(lambda: release.finished(name), "it ends", 200)
    status = release.status(name)
    assert (status.phase, status.progress, status.failed) == ("Complete", "2/2", 0)
    assert release.state(name, "bf16-s0") == "Succeeded"
    assert any("fp8-s0" in event["message"] for event in release.events("RunSkipped"))
    until(lambda: not release.active(name), "nothing of it runs")
    release.remove(name)


def test_an_image_that_cannot_be_pulled_fails_the_runs_and_says_so(
    install: Install, small: Small, until: Until
) -> None:
    release = install("trainer.image.tag=missing")
    release.submit("no-image", small())
    until(lambda: release.finished("no-image"), "it ends", 120)
    assert release.status("no-image").phase == "Failed"
    for row in release.runs("no-image").values():
        assert (row.state, row.reason in PULL) == ("Failed", True), row
        assert "surogate-bench/trainer:missing" in row.message
    until(lambda: not release.active("no-image"), "nothing of it runs")


@pytest.mark.exhaustive
def test_a_model_servers_image_that_cannot_be_pulled_fails_the_evaluations_and_holds_no_gpu(
    install: Install, small: Small, until: Until
) -> None:
    release = install("modelServer.image.tag=missing")
    release.submit("no-server", small(recipes=["bf16"], training__max_steps=20))
    until(lambda: release.finished("no-server"), "it ends", 200)
    [row] = release.runs("no-server").values()
    assert (row.state, row.reason in PULL) == ("Failed", True), row
    assert "model server" in row.message
    until(lambda: not release.pods(sweep="no-server", stage="serve"), "no pod waits for the image any more")
    release.remove("no-server")


@pytest.mark.exhaustive
def test_a_storage_class_that_is_not_there_is_named_and_the_runs_fail(
    install: Install, small: Small, until: Until
) -> None:
    release = install("hub.cache.persistence.enabled=true", "hub.cache.persistence.existingClaim=cache")
    claim = {"accessModes": ["ReadWriteMany"], "storageClassName": "not-there"}
    claim["resources"] = {"requests": {"storage": "1Gi"}}
    release.api.create(f"{release.core}/persistentvolumeclaims", {"metadata": {"name": "cache"}, "spec": claim})
    release.submit("no-volume", small(recipes=["bf16"]))
    until(lambda: any("not-there" in row.message for row in release.status("no-volume").services), "it is named")
    until(lambda: release.finished("no-volume"), "it ends", 120)
    status = release.status("no-volume")
    assert status.phase == "Failed"
    assert 'storageclass.storage.k8s.io "not-there" not found' in status.services[0].message
    failed = status.condition(ConditionType.FAILED)
    assert failed is not None
    assert "VolumeNotBound" in failed.message
    release.remove("no-volume")


@pytest.mark.exhaustive
def test_a_training_that_takes_too_long_has_failed(release: Release, small: Small, until: Until) -> None:
    name = "late"
    release.submit(name, small(training__max_steps=100_000, train_timeout_s=5))
    until(lambda: release.finished(name), "it ends", 150)
    assert release.status(name).phase == "Failed"
    for row in release.runs(name).values():
        assert (row.state, row.reason) == ("Failed", "DeadlineExceeded")
        assert "5 s" in row.message
    assert not release.pods(sweep=name, stage="serve")
    until(lambda: not release.active(name), "nothing of it runs")
    assert len(release.pods(sweep=name, stage="train")) <= len(release.runs(name))
    release.remove(name)


def on_gpus(release: Release, name: str) -> int:
    """Pods of a sweep that hold a GPU."""
    held = [*release.pods(sweep=name, stage="train"), *release.pods(sweep=name, stage="serve")]
    return sum("nodeName" in pod["spec"] and pod["status"]["phase"] in {"Pending", "Running"} for pod in held)


def gpus_on(node: dict[str, Any]) -> int:
    """GPUs that the scheduler counts on a node."""
    return int(node["status"]["allocatable"].get(GPU, 0))


def gpus_of(release: Release) -> int:
    """GPUs of the cluster."""
    return sum(gpus_on(node) for node in release.api.list("/api/v1/nodes"))


@pytest.mark.parametrize(
    ("placement", "slots", "gpus"),
    [
        ("auto", None, 1),
        *(
            pytest.param(*case, marks=pytest.mark.exhaustive)
            for case in [
                ("overlapped", None, 1), ("overlapped", None, 2), ("overlapped", 1, 2), ("phased", 8, 2),
                ("overlapped", 8, 2), ("overlapped", 8, 1),
            ]
        ),
    ],
)  # fmt: skip
def test_fewer_gpus_than_pods_that_want_one_never_block_a_sweep(
    release: Release, small: Small, until: Until, placement: str, slots: int | None, gpus: int
) -> None:
    name = f"{placement}-{slots or 'any'}-{gpus}"
    recipes = ["bf16", "qfp8-bf16", "qbnb"]
    spec = small(recipes=recipes, training__max_steps=30, placement=placement)
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, on_gpus(release, name))
        return bool(release.finished(name))

    others = gpus_of(release) - gpus
    if others < 0:
        pytest.skip(f"the cluster has fewer than {gpus} GPUs")
    with standing_in(release.api, release.namespace, "others", {}, gpus=others):
        release.submit(name, spec | ({"scheduling": {"slots": slots}} if slots else {}))
        until(ended, "it ends", 500)
    status = release.status(name)
    assert (status.phase, status.progress, status.failed) == ("Complete", "3/3", 0)
    assert 1 <= most <= min(slots or gpus, gpus)
    assert len(release.pods(sweep=name, stage="train")) == len(recipes)
    until(lambda: not release.active(name), "nothing of it runs")
    release.remove(name)


@contextmanager
def without_gpus(api: Api) -> Iterator[Callable[[], None]]:
    """No node has a GPU, until the end or until what is yielded is called."""
    nodes = {
        f"/api/v1/nodes/{node['metadata']['name']}/status": count
        for node in api.list("/api/v1/nodes")
        if int(count := node["status"]["capacity"].get(GPU, "0"))
    }

    def set_counts(counts: dict[str, str]) -> None:
        for path, count in counts.items():
            api.patch(path, {"status": {"capacity": {GPU: count}, "allocatable": {GPU: count}}})

    set_counts(dict.fromkeys(nodes, "0"))
    try:
        yield lambda: set_counts(nodes)
    finally:
        set_counts(nodes)


def test_a_release_that_is_installed_without_any_gpu_uses_those_that_are_added_later(
    api: Api, install: Install, small: Small, until: Until
) -> None:
    runs = ["bf16-s0", "qfp8-bf16-s0"]
    with without_gpus(api) as add_gpus:
        until(lambda: not any(gpus_on(node) for node in api.list("/api/v1/nodes")), "there is no GPU")
        release = install("scheduling.unschedulableGraceSeconds=900")  # the chart's own
        release.submit("early", small(recipes=["bf16", "qfp8-bf16"], training__max_steps=20))
        until(
            lambda: [row.reason for row in release.status("early").runs] == ["Unschedulable"] * 2,
            "every trainer is there for an autoscaler to see",
            120,
        )
        assert {row.state for row in release.runs("early").values()} == {"Pending"}
        assert "Insufficient nvidia.com/gpu" in release.runs("early")[runs[0]].message
        add_gpus()
        until(lambda: release.finished("early"), "it ends", 400)
    status = release.status("early")
    assert (status.phase, status.progress, status.failed) == ("Complete", "2/2", 0)
    assert {row.state for row in release.runs("early").values()} == {"Succeeded"}
    assert len(release.pods(sweep="early", stage="train")) == len(runs)
