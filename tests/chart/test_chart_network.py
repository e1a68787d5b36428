"""Which pods reach each other, worked out from the rendered NetworkPolicies as a network plug-in does."""

import ipaddress
from typing import Any

import pytest
from chart_rendering import Render

from surogate_bench.contract import CONTROLLER_PORT, METRICS_PORT, SERVER_PORT, VLLM_PORT

Labels = dict[str, str]
HOME = {"kubernetes.io/metadata.name": "default"}
ELSEWHERE = {"kubernetes.io/metadata.name": "elsewhere"}
DNS = {"kubernetes.io/metadata.name": "kube-system"}
NAME = "app.kubernetes.io/name"


def pod(component: str, instance: str = "demo") -> Labels:
    return {NAME: "surogate-bench", "app.kubernetes.io/instance": instance, "app.kubernetes.io/component": component}


PROMETHEUS = {NAME: "prometheus"}
STRANGER = {"app": "stranger"}


def selects(selector: dict[str, Any], labels: Labels) -> bool:
    exact = selector.get("matchLabels", {}).items() <= labels.items()
    return exact and all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))


def opens(rule: dict[str, Any], side: str, peer: tuple[Labels, Labels], port: int, protocol: str) -> bool:
    """Whether a rule opens a port for a pod, given by its labels and those of its namespace."""
    if not any(p["port"] == port and p.get("protocol", "TCP") == protocol for p in rule["ports"]):
        return False
    labels, namespace = peer
    for other in rule[side]:
        if "ipBlock" in other:
            continue
        here = selects(other["namespaceSelector"], namespace) if "namespaceSelector" in other else namespace == HOME
        if here and selects(other.get("podSelector", {}), labels):
            return True
    return False


def reaches_address(policies: list[dict[str, Any]], source: Labels, address: str, port: int) -> bool:
    for policy in (p["spec"] for p in policies if selects(p["spec"]["podSelector"], source)):
        for rule in policy.get("egress", []):
            if not any(p["port"] == port for p in rule["ports"]):
                continue
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                inside = [ipaddress.ip_network(each) for each in (block["cidr"], *block.get("except", []))]
                found = [ipaddress.ip_address(address) in network for network in inside]
                if found[0] and not any(found[1:]):
                    return True
    return False


def reaches(
    policies: list[dict[str, Any]],
    source: tuple[Labels, Labels],
    target: tuple[Labels, Labels],
    port: int,
    protocol: str = "TCP",
) -> bool:
    """Whether both ends allow a connection. Policies are those of the namespace HOME."""
    for side, subject, peer in (("egress", source, target), ("ingress", target, source)):
        applies = [
            p["spec"]
            for p in policies
            if subject[1] == HOME
            and side.capitalize() in p["spec"]["policyTypes"]
            and selects(p["spec"]["podSelector"], subject[0])
        ]
        rules = [rule for spec in applies for rule in spec.get(side, [])]
        if applies and not any(opens(r, "to" if side == "egress" else "from", peer, port, protocol) for r in rules):
            return False
    return True


OPEN = {
    ("orchestrator", "object-store", 7070),
    ("trainer", "object-store", 7070),
    ("model-server", "object-store", 7070),
    ("evaluator", "object-store", 7070),
    ("test", "object-store", 7070),
    ("evaluator", "model-server", VLLM_PORT),
    ("evaluator", "model-server", SERVER_PORT),
    ("orchestrator", "trainer", METRICS_PORT),
    ("orchestrator", "model-server", METRICS_PORT),
    ("orchestrator", "evaluator", METRICS_PORT),
    ("test", "orchestrator", CONTROLLER_PORT),
}
COMPONENTS = ("orchestrator", "trainer", "model-server", "evaluator", "object-store", "test", "anything-else")
PORTS = (80, 443, 7070, VLLM_PORT, CONTROLLER_PORT, SERVER_PORT, METRICS_PORT)


def test_pods_of_the_release_reach_each_other_only_where_they_must(render: Render) -> None:
    policies = render().of_kind("NetworkPolicy")
    found = {
        (source, target, port)
        for source in COMPONENTS
        for target in COMPONENTS
        for port in PORTS
        if reaches(policies, (pod(source), HOME), (pod(target), HOME), port)
    }
    assert found == OPEN


@pytest.mark.parametrize("component", COMPONENTS)
def test_others_reach_nothing_of_the_release(render: Render, component: str) -> None:
    policies = render().of_kind("NetworkPolicy")
    others = [
        (STRANGER, HOME),
        (STRANGER, ELSEWHERE),
        (pod("evaluator", "another"), HOME),
        (pod("evaluator"), ELSEWHERE),
    ]
    open_ones = [(o, p) for o in others for p in PORTS if reaches(policies, o, (pod(component), HOME), p)]
    assert open_ones == []


def test_prometheus_reaches_metrics_and_nothing_else_from_any_namespace(render: Render) -> None:
    policies = render().of_kind("NetworkPolicy")
    found = {
        (target, port)
        for target in COMPONENTS
        for port in PORTS
        if reaches(policies, (PROMETHEUS, ELSEWHERE), (pod(target), HOME), port)
    }
    assert found == {
        ("orchestrator", CONTROLLER_PORT),
        ("trainer", METRICS_PORT),
        ("model-server", METRICS_PORT),
        ("evaluator", METRICS_PORT),
    }


def test_without_scrapers_the_controller_alone_reads_metrics_of_sweeps(render: Render) -> None:
    policies = render({"metrics": {"scrapeFrom": []}}).of_kind("NetworkPolicy")
    assert not reaches(policies, (PROMETHEUS, ELSEWHERE), (pod("trainer"), HOME), METRICS_PORT)
    assert reaches(policies, (pod("orchestrator"), HOME), (pod("trainer"), HOME), METRICS_PORT)


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_pod_resolves_names(render: Render, component: str) -> None:
    policies = render().of_kind("NetworkPolicy")
    for protocol in ("UDP", "TCP"):
        assert reaches(policies, (pod(component), HOME), ({"k8s-app": "kube-dns"}, DNS), 53, protocol)
    assert not reaches(policies, (pod(component), HOME), (STRANGER, ELSEWHERE), 53, "UDP")


@pytest.mark.parametrize(
    ("component", "api_server", "hub"),
    [
        ("orchestrator", True, True),  # the API server may be anywhere
        ("trainer", False, True),
        ("model-server", False, True),
        ("evaluator", False, True),
        ("object-store", False, False),
        ("test", False, False),
    ],
)
def test_only_who_must_leaves_the_cluster(render: Render, component: str, api_server: bool, hub: bool) -> None:
    policies = render().of_kind("NetworkPolicy")
    for inside in ("10.96.0.1", "192.168.1.1", "172.20.0.1", "169.254.169.254", "100.64.0.1"):
        assert reaches_address(policies, pod(component), inside, 443) is api_server
        assert reaches_address(policies, pod(component), inside, 6443) is api_server
    assert reaches_address(policies, pod(component), "18.154.0.1", 443) is hub
    assert not reaches_address(policies, pod(component), "18.154.0.1", 80)


def test_without_the_hub_a_trainer_leaves_the_cluster_for_the_external_store_only(render: Render) -> None:
    external = {"bundled": {"enabled": False}, "external": {"url": "s3://a"}}
    network = {"externalStore": {"cidrs": ["10.1.0.0/16"], "ports": [9000]}}
    policies = render({"objectStore": external, "hub": {"enabled": False}, "networkPolicy": network}).of_kind(
        "NetworkPolicy"
    )
    for component in ("trainer", "model-server", "evaluator", "orchestrator", "test"):
        assert reaches_address(policies, pod(component), "10.1.2.3", 9000)
    assert not reaches_address(policies, pod("trainer"), "18.154.0.1", 443)
    assert not reaches_address(policies, pod("trainer"), "10.2.0.1", 9000)


def test_policies_can_be_switched_off(render: Render) -> None:
    assert render({"networkPolicy": {"enabled": False}}).of_kind("NetworkPolicy") == []
