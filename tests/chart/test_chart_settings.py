"""The controller's configuration as the chart writes it, read as the controller reads it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_rendering import Render, Rendered

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.runtimes.kubernetes.settings import ClusterSettings, load_settings


def settings_of(rendered: Any, folder: Path) -> ClusterSettings:
    path = folder / "controller.yaml"
    path.write_text(rendered.one("ConfigMap")["data"]["controller.yaml"], encoding="utf-8")
    return load_settings(path)


def test_the_controller_accepts_the_configuration(installation: Rendered, tmp_path: Path) -> None:
    settings = settings_of(installation, tmp_path)
    assert (
        settings.instance
        == installation.one("Deployment", "orchestrator")["metadata"]["labels"]["app.kubernetes.io/instance"]
    )
    accounts = [item["metadata"]["name"] for item in installation.of_kind("ServiceAccount", "tasks")]
    assert settings.service_account in accounts


def test_by_default_sweeps_use_the_bundled_store_and_one_gpu_for_each_pod(render: Render, tmp_path: Path) -> None:
    settings = settings_of(render(name="demo", namespace="bench"), tmp_path)
    assert settings.namespace == "bench"
    assert settings.store.url == "s3://surogate-bench"
    assert settings.store.env["AWS_ENDPOINT_URL"] == "http://demo-surogate-bench-object-store.bench.svc:7070"
    assert settings.store.secret == "demo-surogate-bench-object-store"
    assert (settings.trainer.gpus, settings.prepare.gpus, settings.model_server.gpus, settings.evaluator.gpus) == (
        1,
        0,
        1,
        0,
    )
    assert settings.vllm_api_key is not None
    assert settings.vllm_api_key.name == "demo-surogate-bench-vllm"


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({}, None),
        ({"scheduling": {"slots": 3}}, 3),
        ({"trainer": {"gpus": 0}}, None),
        ({"trainer": {"gpus": 0}, "modelServer": {"gpus": 0}}, 8),
    ],
)
def test_gpus_are_not_counted_by_the_chart_and_only_a_value_limits_a_sweep(
    render: Render, tmp_path: Path, values: dict[str, Any], limit: int | None
) -> None:
    rendered = render(values)
    assert settings_of(rendered, tmp_path).slots == limit
    if rendered.notes:  # the helm command does not print them
        assert (f"at once: {limit}" if limit else "as many run in parallel as there are GPUs") in rendered.notes


def test_what_the_chart_does_not_change_is_the_default_of_the_controller(render: Render, tmp_path: Path) -> None:
    settings = settings_of(render(), tmp_path)
    for field in (
        "gpu_resource",
        "slots",
        "unschedulable_grace_s",
        "start_grace_s",
        "placement_timeout_s",
        "ttl_after_finished_s",
        "termination_grace_s",
        "shm_size",
        "image_pull_policy",
    ):
        assert getattr(settings, field) == ClusterSettings.model_fields[field].default, field


def test_every_value_arrives(render: Render, tmp_path: Path) -> None:
    from_values = {
        "images": {
            "registry": "registry.example.com/team/",
            "tag": "1.2.3",
            "pullSecrets": ["pull"],
            "pullPolicy": "Always",
        },
        "trainer": {
            "image": {"repository": "mine/trainer", "tag": "cuda"},
            "gpus": 2,
            "threads": 4,
            "env": {"A": "1"},
            "podAnnotations": {"team": "ml"},
            "resources": {"requests": {"cpu": 3, "memory": "9Gi"}, "limits": {"memory": None}},
        },
        "modelServer": {"shmSize": "4Gi", "apiKey": {"existingSecret": "vllm", "key": "token"}},
        "tasks": {"ttlSecondsAfterFinished": 600, "terminationGracePeriodSeconds": 45},
        "gpuResource": "amd.com/gpu",
        "scheduling": {
            "slots": 3,
            "queueName": "gpus",
            "priorityClassName": "batch",
            "runtimeClassName": "nvidia",
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
            "computeCapability": "required",
            "unschedulableGraceSeconds": 1,
            "startGraceSeconds": 2,
            "placementTimeoutSeconds": 3000000,
        },
        "hub": {
            "enabled": False,
            "token": {"existingSecret": "hf", "key": "t"},
            "cache": {"persistence": {"enabled": True, "existingClaim": "models"}},
        },
    }
    settings = settings_of(render(from_values), tmp_path)
    assert settings.trainer.image == "registry.example.com/team/mine/trainer:cuda"
    assert settings.prepare.image == settings.trainer.image
    assert settings.evaluator.image == "registry.example.com/team/surogate-bench/evaluator:1.2.3"
    assert settings.trainer.resources.requests == {"cpu": 3, "memory": "9Gi"}
    assert settings.trainer.resources.limits == {}
    assert (settings.trainer.gpus, settings.trainer.threads, settings.trainer.env) == (2, 4, {"A": "1"})
    assert settings.trainer.annotations["team"] == "ml"
    assert settings.image_pull_policy == "Always"
    assert settings.image_pull_secrets == ("pull",)
    assert settings.gpu_resource == "amd.com/gpu"
    assert settings.shm_size == "4Gi"
    assert settings.vllm_api_key is not None
    assert (settings.vllm_api_key.name, settings.vllm_api_key.key) == ("vllm", "token")
    assert settings.hub.token is not None
    assert (settings.hub.enabled, settings.hub.token.name, settings.hub.token.key) == (False, "hf", "t")
    assert settings.hub.cache_claim == "models"
    assert (settings.slots, settings.ttl_after_finished_s, settings.termination_grace_s) == (3, 600, 45)
    assert (settings.unschedulable_grace_s, settings.start_grace_s, settings.placement_timeout_s) == (1, 2, 3000000)
    scheduling = settings.scheduling.model_dump(exclude_none=True)
    assert scheduling == {
        "queue_name": "gpus",
        "priority_class_name": "batch",
        "runtime_class_name": "nvidia",
        "node_selector": {"pool": "gpu"},
        "tolerations": ({"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},),
        "compute_capability": "required",
    }


def test_an_external_store_is_used_as_given_and_brings_no_server(render: Render, tmp_path: Path) -> None:
    external = {"url": "gs://results/team", "env": {"GOOGLE_PROJECT": "p"}, "existingSecret": "gcs"}
    rendered = render({"objectStore": {"bundled": {"enabled": False}, "external": external}})
    store = settings_of(rendered, tmp_path).store
    assert (store.url, store.env, store.secret) == ("gs://results/team", {"GOOGLE_PROJECT": "p"}, "gcs")
    assert [item for item in rendered.manifests if "object-store" in item["metadata"]["name"]] == []
    pod = rendered.one("Deployment", "orchestrator")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert {"name": "GOOGLE_PROJECT", "value": "p"} in container["env"]
    assert {"name": "store-credentials", "secret": {"secretName": "gcs", "optional": True}} in pod["volumes"]
    assert str(store.credentials) in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_pods_of_sweeps_are_found_by_prometheus_unless_that_is_switched_off(render: Render, tmp_path: Path) -> None:
    found = settings_of(render(), tmp_path).evaluator.annotations
    assert found == {"prometheus.io/scrape": "true", "prometheus.io/port": "9400", "prometheus.io/path": "/metrics"}
    hidden = settings_of(render({"metrics": {"podAnnotations": False}}), tmp_path).evaluator.annotations
    assert hidden == {}


def test_a_changed_configuration_restarts_the_controller(render: Render) -> None:
    def checksum(values: dict[str, Any]) -> str:
        pod = render(values).one("Deployment", "orchestrator")["spec"]["template"]
        return str(pod["metadata"]["annotations"]["checksum/config"])

    assert checksum({}) == checksum({})
    assert checksum({}) != checksum({"scheduling": {"slots": 3}})


def test_the_sweep_that_the_notes_propose_is_a_valid_one(render: Render) -> None:
    notes = render().notes
    if not notes:
        pytest.skip("the helm command does not print them")
    manifest = yaml.safe_load(notes.partition("<<'EOF'\n")[2].partition("   EOF")[0])
    assert RecipeSweep(name=manifest["metadata"]["name"], **manifest["spec"]).recipes
