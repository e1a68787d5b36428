"""The store is away, damaged or locked, and the namespace is full: sweeps say so, and go on as soon as they can."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from real_cluster.release import Install, Release, Small, Until

from surogate_bench.layout import manifest_key
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.resource.status import ConditionType

pytestmark = [pytest.mark.cluster, pytest.mark.exhaustive, pytest.mark.timeout(900)]

RUN = "bf16-s0"


@pytest.fixture(scope="module")
def own(install: Install) -> Release:
    """A release that tests may break."""
    return install()


@pytest.fixture
def store_service(own: Release) -> str:
    """Name of the store's Service and Secret."""
    [found] = own.api.list(f"{own.core}/services", labelSelector="app.kubernetes.io/component=object-store")
    return str(found["metadata"]["name"])


def reason(release: Release, name: str, kind: ConditionType) -> str:
    """Reason of a sweep's condition; empty while there is none."""
    condition = release.status(name).condition(kind)
    return condition.reason if condition else ""


def why_not_admitted(release: Release, name: str) -> str:
    """Message of a sweep's condition Admitted; empty while there is none."""
    admitted = release.admitted(name)
    return admitted.message if admitted else ""


@contextmanager
def without_store(release: Release) -> Iterator[None]:
    """The store's server is down, its pod and data stay: the container gets an image that is not there."""
    selector = "app.kubernetes.io/component=object-store"
    [pod] = release.api.list(f"{release.core}/pods", labelSelector=selector)
    [container] = pod["spec"]["containers"]
    set_image = ("set", "image", f"pod/{pod['metadata']['name']}")
    release.kubectl(*set_image, f"{container['name']}=surogate-bench/missing:none")
    try:
        yield
    finally:
        release.kubectl(*set_image, f"{container['name']}={container['image']}")


def completes(release: Release, until: Until, name: str) -> None:
    until(lambda: release.finished(name), f"{name} ends", 400)
    status = release.status(name)
    assert (status.phase, status.failed) == ("Complete", 0), status
    until(lambda: not release.active(name), "nothing of it runs")
    release.remove(name)


def log_of(release: Release, name: str) -> str:
    """End of the trainer's log."""
    return release.cli("logs", name, RUN, "--stage", "train", "--tail", "100").stdout


def test_a_store_that_is_away_for_a_while_costs_time_and_nothing_else(own: Release, small: Small, until: Until) -> None:
    name = "stranded"
    own.submit(name, small(recipes=["bf16"], training__max_steps=300))
    layout = own.layout(name)
    with own.store() as store:
        until(lambda: store.list(f"{layout.train(RUN)}/checkpoints"), "there is a checkpoint", 300)
        before = own.results(store, name)
    with without_store(own):
        until(lambda: "waiting for the store" in log_of(own, name), "the trainer waits", 200)
        until(lambda: reason(own, name, ConditionType.COMPLETE) == "StoreAway", "the status says so", 200)
    until(lambda: own.finished(name), "it ends", 400)
    with own.store() as store:
        after = own.results(store, name)
    assert after | before == after
    assert [event for event in own.events("StoreAway") if event["involvedObject"]["name"] == name]
    completes(own, until, name)


def test_a_secret_that_is_missing_is_named(own: Release, small: Small, until: Until, store_service: str) -> None:
    path = f"{own.core}/secrets"
    kept = own.api.get(f"{path}/{store_service}")
    own.api.delete(f"{path}/{store_service}")
    try:
        own.submit("no-secret", small(recipes=["bf16"]))
        until(lambda: own.finished("no-secret"), "it ends", 120)
    finally:
        metadata = {field: kept["metadata"][field] for field in ("name", "labels", "annotations")}
        own.api.create(path, {"metadata": metadata, "data": kept["data"]})
    [row] = own.runs("no-secret").values()
    assert (row.state, row.reason) == ("Failed", "CreateContainerConfigError")
    assert store_service in row.message
    until(lambda: not own.active("no-secret"), "nothing of it runs")
    own.remove("no-secret")


def test_wrong_credentials_are_named_and_a_sweep_starts_once_they_are_right(
    own: Release, small: Small, until: Until, store_service: str
) -> None:
    path = f"{own.core}/secrets/{store_service}"
    right = own.api.get(path)["data"]
    wrong = {"AWS_SECRET_ACCESS_KEY": base64.b64encode(b"not the secret").decode()}
    own.api.patch(path, {"data": wrong})
    own.kill(own.controllers()[0])
    try:
        own.submit("locked-out", small(recipes=["bf16"], training__max_steps=20))
        until(lambda: reason(own, "locked-out", ConditionType.ADMITTED) == "StoreNotUsable", "the status says so", 120)
        assert "s3://surogate-bench" in why_not_admitted(own, "locked-out")
        assert own.events("StoreNotUsable")
        assert own.owned("locked-out") == []
    finally:
        own.api.patch(path, {"data": right})
        own.kill(own.controllers()[0])
    completes(own, until, "locked-out")


def test_a_store_secret_that_is_missing_is_named_and_noticed_once_it_is_there(
    install: Install, small: Small, until: Until
) -> None:
    external = "objectStore.external"
    release = install(
        "objectStore.bundled.enabled=false", f"{external}.url=s3://nowhere", f"{external}.existingSecret=not-there"
    )
    release.submit("waits", small(recipes=["bf16"]))
    until(lambda: "'not-there'" in why_not_admitted(release, "waits"), "the status names the Secret")
    secret = {"metadata": {"name": "not-there"}, "stringData": {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}}
    release.api.create(f"{release.core}/secrets", secret)
    until(lambda: "cannot be reached" in why_not_admitted(release, "waits"), "the Secret is noticed", 240)
    release.remove("waits")


def test_a_full_namespace_is_named_and_a_sweep_goes_on_once_there_is_room(
    own: Release, small: Small, until: Until
) -> None:
    quota = f"{own.core}/resourcequotas"
    hard = {"requests.nvidia.com/gpu": "0"}
    own.api.create(quota, {"metadata": {"name": "few"}, "spec": {"hard": hard}})
    own.submit("crowded", small(recipes=["bf16"], training__max_steps=20))
    until(lambda: any("exceeded quota" in row.message for row in own.status("crowded").runs), "the status says so", 120)
    assert own.runs("crowded")[RUN].reason == "FailedCreate"
    own.api.patch(f"{quota}/few", {"spec": {"hard": {"requests.nvidia.com/gpu": "1"}}})
    completes(own, until, "crowded")
    own.api.delete(f"{quota}/few")


def test_adapters_that_were_tampered_with_are_refused_and_the_others_are_served(
    own: Release, small: Small, until: Until
) -> None:
    name = "tampered"
    high, other, good = "bf16-s0", "qfp8-bf16-s0", "qbnb-s0"
    spec = small(recipes=["bf16", "qfp8-bf16", "qbnb"], training__max_steps=20)
    own.submit(name, spec)
    layout = own.layout(name)
    until(lambda: [own.state(name, run) for run in (high, other, good)] == ["Trained"] * 3, "all are trained", 200)
    own.change(name, suspend=True)
    until(lambda: own.status(name).phase == "Suspended" and not own.active(name), "it is suspended")
    with own.store() as store:
        raise_rank(store, layout.train(high))
        store.put(f"{layout.train(other)}/adapter/adapter_model.safetensors", b"something else")
    own.change(name, suspend=False)
    until(lambda: own.finished(name), "it ends", 300)
    rows = own.runs(name)
    assert own.status(name).phase == "Failed"
    assert {run: row.state for run, row in rows.items()} == {high: "Failed", other: "Failed", good: "Succeeded"}
    assert "rank 128" in rows[high].message
    assert "differs from its manifest" in rows[other].message
    assert [len(own.pods(sweep=name, stage="eval", run=run)) for run in (high, other, good)] == [1, 1, 1]
    until(lambda: not own.active(name), "nothing of it runs")
    own.remove(name)


def raise_rank(store: ObjectStore, prefix: str) -> None:
    """Give an adapter a rank that its server does not allow, and a manifest that agrees with it."""
    key = "adapter/adapter_config.json"
    config = json.loads(store.get(f"{prefix}/{key}")) | {"r": 128}
    data = json.dumps(config).encode()
    manifest = json.loads(store.get(manifest_key(prefix)))
    manifest["files"][key] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    store.put(f"{prefix}/{key}", data)
    store.put(manifest_key(prefix), json.dumps(manifest).encode())
