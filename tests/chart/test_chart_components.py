"""Components that values switch on and off, and the definition of the resource."""

import base64
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from chart_rendering import CHART, Render
from waiting import PATIENCE_S

from surogate_bench_orchestrator.controller.election import LEASE


def test_the_definition_of_the_resource_is_the_generated_one_and_outlives_the_release(render: Render) -> None:
    generated = yaml.safe_load((CHART / "files" / "recipesweeps.crd.yaml").read_text(encoding="utf-8"))
    rendered = render().one("CustomResourceDefinition")
    assert rendered["spec"] == generated["spec"]
    assert rendered["metadata"]["name"] == "recipesweeps.bench.surogate.ai"
    assert rendered["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert render({"crds": {"install": False}}).of_kind("CustomResourceDefinition") == []


def test_one_controller_at_a_time_may_be_moved(render: Render) -> None:
    assert render().one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert render({"orchestrator": {"replicas": 1}}).of_kind("PodDisruptionBudget") == []


def test_generated_secrets_are_long_and_differ(render: Render) -> None:
    secrets = {
        key: base64.b64decode(value).decode()
        for item in render().of_kind("Secret")
        for key, value in item["data"].items()
    }
    assert {key: len(value) for key, value in secrets.items()} == {
        "AWS_ACCESS_KEY_ID": 20,
        "AWS_SECRET_ACCESS_KEY": 40,
        "api-key": 40,
    }
    assert len(set(secrets.values())) == 3


def test_existing_secrets_are_used_and_none_is_made(render: Render) -> None:
    values = {
        "objectStore": {"bundled": {"existingSecret": "mine"}},
        "modelServer": {"apiKey": {"existingSecret": "vllm"}},
    }
    rendered = render(values)
    assert rendered.of_kind("Secret") == []
    server = rendered.one("Deployment", "object-store")["spec"]["template"]["spec"]["containers"][0]
    from_secret = [each["valueFrom"]["secretKeyRef"] for each in server["env"] if "valueFrom" in each]
    assert from_secret == [
        {"name": "mine", "key": "AWS_ACCESS_KEY_ID"},
        {"name": "mine", "key": "AWS_SECRET_ACCESS_KEY"},
    ]


@pytest.mark.parametrize(("metadata", "sidecar"), [("sidecar", ["--sidecar=/data/metadata"]), ("xattr", [])])
def test_the_bundled_store_keeps_metadata_as_asked(render: Render, metadata: str, sidecar: list[str]) -> None:
    pod = render({"objectStore": {"bundled": {"metadata": metadata}}}).one("Deployment", "object-store")
    arguments = pod["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [each for each in arguments if "sidecar" in each or "nometa" in each] == sidecar


def test_a_volume_is_claimed_or_taken_as_it_is_or_not_used(render: Render) -> None:
    def volume_and_claims(**persistence: Any) -> tuple[dict[str, Any], list[str]]:
        rendered = render({"objectStore": {"bundled": {"persistence": persistence}}})
        pod = rendered.one("Deployment", "object-store")["spec"]["template"]["spec"]
        (data,) = [volume for volume in pod["volumes"] if volume["name"] == "data"]
        return data, [item["metadata"]["name"] for item in rendered.of_kind("PersistentVolumeClaim")]

    name = "demo-surogate-bench-object-store"
    assert volume_and_claims() == ({"name": "data", "persistentVolumeClaim": {"claimName": name}}, [name])
    mine = {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}}
    assert volume_and_claims(existingClaim="mine") == (mine, [])
    assert volume_and_claims(enabled=False) == ({"name": "data", "emptyDir": {}}, [])


def test_claims_stay_after_an_uninstall_where_that_is_asked_for(render: Render) -> None:
    claims = render(
        {
            "objectStore": {"bundled": {"persistence": {"keep": True}}},
            "hub": {"cache": {"persistence": {"enabled": True}}},
        }
    ).of_kind("PersistentVolumeClaim")
    kept = {c["metadata"]["name"]: c["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for c in claims}
    assert kept == {"demo-surogate-bench-object-store": "keep", "demo-surogate-bench-hub-cache": None}


def test_pod_monitors_find_every_pod_with_metrics(render: Render) -> None:
    assert render().of_kind("PodMonitor") == []
    rendered = render({"metrics": {"podMonitor": {"enabled": True, "interval": "5s", "labels": {"release": "p"}}}})
    tasks, controller = rendered.one("PodMonitor", "tasks"), rendered.one("PodMonitor", "orchestrator")
    assert controller["spec"]["podMetricsEndpoints"] == [{"port": "http", "path": "/metrics", "interval": "5s"}]
    assert tasks["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "5s"}]
    assert tasks["spec"]["selector"]["matchExpressions"][0]["values"] == ["trainer", "model-server", "evaluator"]
    assert tasks["metadata"]["labels"]["release"] == "p"


def test_releases_share_no_name_but_what_a_namespace_has_one_of(render: Render) -> None:
    def names(release: str) -> set[tuple[str, str]]:
        return {
            (item["kind"], item["metadata"]["name"])
            for item in render(name=release).manifests
            if item["kind"] not in {"CustomResourceDefinition", "Lease"}
        }

    long = "a-release-with-a-name-of-fifty-three-characters-1234"
    releases = [names(name) for name in ("surogate-bench", "x", f"{long}5", f"{long}6")]
    assert len(set().union(*releases)) == sum(map(len, releases))


def test_the_lease_of_the_controllers_belongs_to_the_release(render: Render) -> None:
    lease = render().one("Lease")
    assert lease["metadata"]["name"] == LEASE
    assert "spec" not in lease  # an upgrade must not take it from the controller that holds it


def test_a_release_called_like_the_chart_does_not_repeat_it(render: Render) -> None:
    assert (
        render(name="surogate-bench").one("Service", "orchestrator")["metadata"]["name"]
        == "surogate-bench-orchestrator"
    )
    assert render(name="x").one("Service", "orchestrator")["metadata"]["name"] == "x-surogate-bench-orchestrator"
    named = render({"nameOverride": "bench"}, name="x")
    assert named.one("Service", "orchestrator")["metadata"]["name"] == "x-bench-orchestrator"


@pytest.mark.skipif(shutil.which("helm") is None, reason="there is no helm on PATH")
def test_the_helm_command_renders_the_same(render: Render) -> None:
    command = ["helm", "template", "demo", str(CHART), "-n", "default", "--kube-version", "1.35.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    manifests = [item for item in yaml.safe_load_all(done.stdout) if item]

    def comparable(items: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
        return {(item["kind"], item["metadata"]["name"]): item for item in items if item["kind"] != "Secret"}

    assert comparable(manifests) == comparable(render().manifests)
