"""The bundled store with the chart's defaults, and what a sweep says where its pod is not ready."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from real_cluster.release import IMAGE_TAG, Install, Release, Small, Until

from surogate_bench_orchestrator.runtimes.kubernetes.api import Api

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

BUNDLED = "objectStore.bundled"
SCRATCH = f"{BUNDLED}.persistence.enabled=false"
CHART = Path(__file__).parents[2] / "charts"
STORE = "app.kubernetes.io/component=object-store"


def store_pods(release: Release) -> list[dict[str, Any]]:
    """Pods of the bundled store, also those that end."""
    found: list[dict[str, Any]] = release.api.list(f"{release.core}/pods", labelSelector=STORE)
    return found


def is_admitted(release: Release, name: str) -> bool:
    admitted = release.admitted(name)
    return admitted is not None and admitted.is_true


def says(release: Release, until: Until, name: str, *words: str) -> str:
    """Wait until the condition Admitted of a sweep holds these words; its message, which an Event has as well."""
    message = ""

    def message_is_complete() -> bool:
        nonlocal message
        admitted = release.admitted(name)
        message = admitted.message if admitted else ""
        return all(word in message for word in words)

    until(message_is_complete, f"condition Admitted of {name} says {words}", 180)
    admitted = release.admitted(name)
    assert admitted is not None
    assert admitted.reason == "StoreNotUsable"
    events = [event["message"] for event in release.events("StoreNotUsable")]
    assert any(all(word in event for word in words) for event in events), events
    return message


@contextmanager
def volume_of_root(api: Api) -> Iterator[str]:
    """A StorageClass whose one volume is a folder of root's to which only root may write; yields its name."""
    name = f"surogate-bench-test-{secrets.token_hex(4)}"
    folder = {"path": f"/var/tmp/{name}", "type": "DirectoryOrCreate"}  # noqa: S108 - on a node; 0755, without fsGroup
    spec = {
        "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": folder,
    }  # fmt: skip
    api.create("/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": spec})
    try:
        yield name
    finally:
        api.delete(f"/api/v1/persistentvolumes/{name}")


def test_results_outlive_the_stores_pod_on_the_volume_of_a_default_install(release: Release, until: Until) -> None:
    [claim] = release.api.list(f"{release.core}/persistentvolumeclaims", labelSelector=STORE)
    assert claim["status"]["phase"] == "Bound"
    with release.store() as store:
        store.put("kept/file", b"written")
    [before] = store_pods(release)
    release.kill(before)
    until(lambda: any(is_ready(pod) for pod in store_pods(release)), "there is another pod", 120)
    with release.store() as store:
        assert store.get("kept/file") == b"written"
        store.delete(["kept/file"])


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def test_the_bundled_store_also_works_without_a_volume(install: Install, small: Small, until: Until) -> None:
    release = install(SCRATCH)
    assert release.api.list(f"{release.core}/persistentvolumeclaims") == []
    release.helm("test", release.name, "--timeout", "2m")
    release.submit("scratch", small(recipes=["bf16"]))
    until(lambda: is_admitted(release, "scratch"), "it is admitted")
    release.remove("scratch")


def test_a_volume_that_may_not_be_written_is_named_with_the_remedy_which_helps(
    api: Api, install: Install, small: Small, until: Until
) -> None:
    with volume_of_root(api) as storage_class:
        release = install(f"{BUNDLED}.persistence.storageClass={storage_class}", ready=False)
        until(lambda: store_pods(release), "the store has a pod")
        release.submit("read-only", small(recipes=["bf16"]))
        claim = f"PersistentVolumeClaim {release.name}-object-store is not writable for 10001:10001"
        owner = "belongs to 0:0, mode 0755"
        message = says(release, until, "read-only", claim, owner, SCRATCH)
        [pod] = store_pods(release)
        assert message.startswith(f"Pod {pod['metadata']['name']} is not ready: init container make-bucket ended")
        chart_values = ("--reuse-values", "--set", SCRATCH, "--wait", "--timeout", "3m")
        release.helm("upgrade", release.name, str(CHART), *chart_values)
        until(lambda: is_admitted(release, "read-only"), "it is admitted", 120)
        release.remove("read-only")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("image.tag=missing", ("container versitygw has no image", "versitygw:missing", "objectStore.bundled.image")),
        (
            "nodeSelector.nowhere=yes",
            ("no node accepts it", "node affinity/selector", "objectStore.bundled.nodeSelector"),
        ),
        (
            f"image.repository=surogate-bench/orchestrator,{BUNDLED}.image.tag={IMAGE_TAG}",  # no server of S3
            ("container versitygw ended with exit code 2", "--port"),
        ),
        ("persistence.storageClass=none", ('"none" not found', "objectStore.bundled.persistence.storageClass")),
        ("existingSecret=not-there", ('secret "not-there" not found', "CreateContainerConfigError")),
    ],
)
def test_a_store_whose_pod_does_not_become_ready_is_reported_by_its_pod(
    install: Install, small: Small, until: Until, change: str, expected: tuple[str, ...]
) -> None:
    release = install(f"{BUNDLED}.{change}", ready=False)
    release.submit("waits", small(recipes=["bf16"]))
    message = says(release, until, "waits", *expected)
    assert message.startswith(f"Pod {release.name}-object-store-")
    release.remove("waits")
