"""A release is upgraded in the middle of a sweep, uninstalled, and installed again; two releases live side by side."""

from pathlib import Path
from typing import Any

import pytest
from real_cluster.release import Install, Release, Small, Until

pytestmark = [pytest.mark.cluster, pytest.mark.exhaustive, pytest.mark.timeout(900)]

CHART = Path(__file__).parents[2] / "charts"
SWEEP, RECIPES = "kept", ["bf16", "qfp8-bf16"]
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/recipesweeps.bench.surogate.ai"
OWN_OF_NAMESPACE = {"configmaps/kube-root-ca.crt", "serviceaccounts/default"}
COLLECTED = {"events", "endpoints", "endpointslices", "replicasets", "controllerrevisions"}
"""Kinds that Kubernetes makes and takes away itself."""


def secrets_of(release: Release) -> dict[str, dict[str, str]]:
    """Data of the Secrets that the chart made, without Helm's own."""
    found = release.api.list(f"{release.core}/secrets", fieldSelector="type=Opaque")
    return {secret["metadata"]["name"]: secret["data"] for secret in found}


def everything(release: Release) -> set[str]:
    """Every object of the namespace, of every kind that the API knows, as <plural>/<name>."""
    groups = [group["preferredVersion"]["groupVersion"] for group in release.api.get("/apis")["groups"]]
    found = set()
    for base in ["/api/v1", *(f"/apis/{group}" for group in groups)]:
        for kind in release.api.get(base)["resources"]:
            if kind["namespaced"] and "list" in kind["verbs"] and kind["name"] not in COLLECTED:
                items = release.api.list(f"{base}/namespaces/{release.namespace}/{kind['name']}")
                found |= {f"{kind['name']}/{item['metadata']['name']}" for item in items}
    return found - OWN_OF_NAMESPACE


Upgraded = tuple[Release, dict[str, Any]]
"""A release, and its Secrets before."""


@pytest.fixture(scope="module")
def upgraded(install: Install, until: Until, small: Small) -> Upgraded:
    """A release that was upgraded while it trained, with its Secrets as they were before."""
    release = install()
    before = secrets_of(release)
    release.submit(SWEEP, small(recipes=RECIPES))
    until(lambda: release.pods(stage="train"), "it trains")
    release.helm("upgrade", release.name, str(CHART), "--reuse-values", "--set", "scheduling.slots=1", "--wait")
    return release, before


def test_an_upgrade_keeps_the_credentials(upgraded: Upgraded) -> None:
    release, before = upgraded
    assert len(before) == 2
    assert secrets_of(release) == before


def test_a_sweep_goes_on_through_an_upgrade_without_doing_anything_twice(upgraded: Upgraded, until: Until) -> None:
    release, _ = upgraded
    until(lambda: release.finished(SWEEP), "the sweep is over", 400)
    rows = release.runs(SWEEP)
    assert {row.state for row in rows.values()} == {"Succeeded"}, rows
    for stage in ("train", "eval"):
        ran = [pod["metadata"]["labels"]["bench.surogate.ai/run"] for pod in release.pods(stage=stage)]
        assert sorted(ran) == sorted(rows)


def test_uninstalling_leaves_the_sweeps_only(upgraded: Upgraded, until: Until) -> None:
    release, _ = upgraded
    until(lambda: release.finished(SWEEP) and not release.active(SWEEP), "the sweep is over", 400)
    release.helm("uninstall", release.name, "--wait")
    until(lambda: everything(release) == {f"recipesweeps/{SWEEP}"}, "the release is gone")
    assert release.api.get(DEFINITION) is not None
    assert release.status(SWEEP).phase == "Complete"


def test_installing_again_finds_the_sweeps(upgraded: Upgraded, until: Until) -> None:
    release, _ = upgraded
    if secrets_of(release):
        pytest.skip("the release was not uninstalled")
    values = ["--values", str(CHART.parent / "tests" / "cluster" / "values.yaml")]
    release.helm("install", release.name, str(CHART), *values, "--wait")
    assert release.status(SWEEP).phase == "Complete"
    release.remove(SWEEP)
    until(lambda: release.api.get(f"{release.sweeps}/{SWEEP}") is None, "the sweep is gone")
    release.helm("uninstall", release.name, "--wait")
    until(lambda: not everything(release), "nothing is left")


def test_uninstalling_in_the_middle_of_a_sweep_stops_what_runs(install: Install, small: Small, until: Until) -> None:
    release = install()
    release.submit("halfway", small(recipes=RECIPES))
    until(lambda: any(row.state == "Training" for row in release.runs("halfway").values()), "it trains", 200)
    release.helm("uninstall", release.name, "--wait")
    until(lambda: everything(release) == {"recipesweeps/halfway"}, "the release is gone")


def test_two_releases_run_their_own_sweeps_alone(
    release: Release, install: Install, small: Small, until: Until
) -> None:
    owner = release.api.get(DEFINITION)["metadata"].get("annotations")
    second = install(name="second.release")
    assert release.api.get(DEFINITION)["metadata"].get("annotations") == owner
    for each, recipe in ((release, "bf16"), (second, "qfp8-bf16")):
        each.submit("twin", small(recipes=[recipe], training__max_steps=20))
    until(lambda: release.finished("twin") and second.finished("twin"), "both sweeps are over", 500)
    for each, run, instance in ((release, "bf16-s0", release.name), (second, "qfp8-bf16-s0", "second-release")):
        assert [(row.name, row.state) for row in each.runs("twin").values()] == [(run, "Succeeded")]
        pods = each.pods(sweep="twin")
        assert {pod["metadata"]["labels"]["app.kubernetes.io/instance"] for pod in pods} == {instance}
        with each.store() as store:
            hashes = {info.key.split("/")[2] for info in store.list("sweeps/twin")}
        assert hashes == {each.status("twin").spec_hash}
    release.remove("twin")
