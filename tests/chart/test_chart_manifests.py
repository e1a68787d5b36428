"""What holds for every installation: valid, restricted, unique, namespaced."""

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart_rendering import Rendered

CLUSTER_SCOPED = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Namespace", "PriorityClass"}
OF_AN_OPERATOR = {"PodMonitor"}
KUBERNETES = "1.35"


def pod_specs(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in manifests:
        if item["kind"] in {"Deployment", "Job"}:
            yield item["spec"]["template"]["spec"]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def test_every_manifest_is_valid(installation: Rendered) -> None:
    checked = [item for item in installation.manifests if item["kind"] not in OF_AN_OPERATOR]
    for item in checked:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
    assert len(checked) > 10


def test_no_object_has_the_name_of_another(installation: Rendered) -> None:
    names = [(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in installation.manifests]
    assert len(names) == len(set(names))


def test_names_and_label_values_are_at_most_63_characters(installation: Rendered) -> None:
    for item in installation.manifests:
        assert len(item["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in item["metadata"]["labels"].values())


def test_names_of_services_are_names_of_hosts(installation: Rendered) -> None:
    for item in installation.of_kind("Service"):
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", item["metadata"]["name"])


def test_every_label_is_text(installation: Rendered) -> None:
    values = [value for item in installation.manifests for value in item["metadata"]["labels"].values()]
    assert [value for value in values if not isinstance(value, str)] == []


def test_nothing_belongs_to_the_whole_cluster_but_the_definition_of_the_resource(installation: Rendered) -> None:
    kinds = [item["kind"] for item in installation.manifests]
    assert set(kinds) & CLUSTER_SCOPED <= {"CustomResourceDefinition"}
    assert kinds.count("CustomResourceDefinition") <= 1


def test_pods_keep_to_the_restricted_security_standard(installation: Rendered) -> None:
    specs = list(pod_specs(installation.manifests))
    assert specs
    for spec in specs:
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert pod["runAsUser"] == 10001
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        assert all(
            set(v) - {"name"} <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
            for v in spec.get("volumes", [])
        )
        for container in containers(spec):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True


def test_every_container_asks_for_what_it_needs_and_is_held_to_its_memory(installation: Rendered) -> None:
    for spec in pod_specs(installation.manifests):
        for container in containers(spec):
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


def test_the_end_of_its_log_is_the_last_word_of_every_container_that_fails(installation: Rendered) -> None:
    for spec in pod_specs(installation.manifests):
        assert {container.get("terminationMessagePolicy") for container in containers(spec)} == {
            "FallbackToLogsOnError"
        }


def test_only_the_controller_and_what_cleans_up_after_it_get_a_token_of_the_api(installation: Rendered) -> None:
    with_token = [spec for spec in pod_specs(installation.manifests) if spec["automountServiceAccountToken"]]
    assert sorted(spec["containers"][0]["name"] for spec in with_token) == ["cleanup", "controller"]
    assert all(item["automountServiceAccountToken"] is False for item in installation.of_kind("ServiceAccount"))


def test_selectors_find_the_pods_they_are_meant_for(installation: Rendered) -> None:
    for item in installation.of_kind("Deployment"):
        labels = item["spec"]["template"]["metadata"]["labels"]
        assert item["spec"]["selector"]["matchLabels"].items() <= labels.items()
    pods = [item["spec"]["template"]["metadata"]["labels"] for item in installation.of_kind("Deployment")]
    for service in installation.of_kind("Service"):
        assert sum(service["spec"]["selector"].items() <= labels.items() for labels in pods) == 1


def test_the_role_reads_no_secret_and_grants_nothing_wholesale(installation: Rendered) -> None:
    rules = installation.one("Role")["rules"]
    words = {word for rule in rules for key in ("apiGroups", "resources", "verbs") for word in rule[key]}
    assert "*" not in words
    assert "secrets" not in words


def test_the_notes_name_the_objects_that_exist(installation: Rendered) -> None:
    if not installation.notes:
        pytest.skip("the helm command does not print them")
    controller = installation.one("Deployment", "orchestrator")["metadata"]["name"]
    service = installation.one("Service", "orchestrator")["metadata"]["name"]
    assert f"deployment/{controller}" in installation.notes
    assert f"service/{service}" in installation.notes
    assert yaml.safe_load(installation.notes.partition("<<'EOF'\n")[2].partition("   EOF")[0])["kind"] == "RecipeSweep"
