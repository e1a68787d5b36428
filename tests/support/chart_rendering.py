"""Rendering the chart without a cluster: by Helm's library, or the helm on PATH where that is not installed."""

import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import yaml

Manifest = dict[str, Any]
CHART = Path(__file__).parents[2] / "charts"
KUBERNETES = "1.35.0"
HELM = shutil.which("helm")

EVERYTHING: dict[str, Any] = {
    "nameOverride": "sb",
    "images": {
        "registry": "registry.example.com/team/",
        "tag": "1.2.3",
        "pullSecrets": ["pull"],
        "pullPolicy": "Always",
    },
    "orchestrator": {
        "replicas": 3,
        "image": {"tag": "special"},
        "env": {"LOG_LEVEL": "debug"},
        "podAnnotations": {"a": "b"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "control", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "high",
        "serviceAccountAnnotations": {"example.com/role": "writer"},
    },
    "trainer": {"gpus": 2, "threads": 4, "env": {"A": "1"}, "podAnnotations": {"team": "ml"}},
    "prepare": {"threads": 1},
    "modelServer": {"gpus": 1, "threads": 8, "shmSize": "4Gi", "apiKey": {"existingSecret": "vllm", "key": "token"}},
    "evaluator": {"resources": {"limits": {"cpu": 2, "memory": "4Gi"}}},
    "tasks": {"ttlSecondsAfterFinished": 600, "serviceAccountAnnotations": {"example.com/role": "writer"}},
    "gpuResource": "amd.com/gpu",
    "scheduling": {
        "slots": 3,
        "queueName": "gpus",
        "priorityClassName": "batch",
        "runtimeClassName": "nvidia",
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "computeCapability": "required",
    },
    "hub": {
        "token": {"existingSecret": "hf"},
        "cache": {"persistence": {"enabled": True, "storageClass": "shared", "keep": True}},
    },
    "objectStore": {
        "bundled": {
            "persistence": {"storageClass": "fast", "keep": True},
            "metadata": "xattr",
            "priorityClassName": "x",
        }
    },
    "metrics": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
}
EXTERNAL: dict[str, Any] = {
    "objectStore": {
        "bundled": {"enabled": False},
        "external": {"url": "s3://results/team", "env": {"AWS_REGION": "eu-west-1"}, "existingSecret": "s3"},
    },
    "hub": {"enabled": False},
    "networkPolicy": {"externalStore": {"cidrs": ["10.1.0.0/16"], "ports": [9000]}},
}
BARE: dict[str, Any] = {
    "orchestrator": {"replicas": 1},
    "objectStore": {"bundled": {"persistence": {"enabled": False}, "existingSecret": "mine"}},
    "networkPolicy": {"enabled": False},
    "metrics": {"podAnnotations": False, "scrapeFrom": []},
    "crds": {"install": False},
    "trainer": {"gpus": 0},
    "modelServer": {"gpus": 0},
}
INSTALLATIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "default": ({}, "surogate-bench", "default"),
    "everything": (EVERYTHING, "everything", "team-a"),
    "external store": (EXTERNAL, "other", "team-b"),
    "bare": (BARE, "bare", "default"),
    "a name that YAML reads as a Boolean": ({}, "y", "123"),
    "a number": ({}, "42", "42"),
    "a long name": ({}, "a-release-with-a-name-of-fifty-three-characters-12345", "n" * 63),
    "a name with dots": ({}, "v1.2", "default"),
}


class ChartError(Exception):
    """What Helm answered instead of manifests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """A rendered release."""

    manifests: list[Manifest]
    notes: str

    def of_kind(self, kind: str, component: str | None = None) -> list[Manifest]:
        """Manifests of a kind, and of a component if one is given."""
        return [
            item
            for item in self.manifests
            if item["kind"] == kind
            and component in {None, item["metadata"]["labels"].get("app.kubernetes.io/component")}
        ]

    def one(self, kind: str, component: str | None = None) -> Manifest:
        """The only manifest of a kind and component."""
        (found,) = self.of_kind(kind, component)
        return found


class Render(Protocol):
    """Renders the chart, as the fixture ``render`` does."""

    def __call__(
        self, values: dict[str, Any] | None = None, *, name: str = "demo", namespace: str = "default"
    ) -> Rendered: ...


@lru_cache(maxsize=1)
def library() -> Any:
    """Return Helm's library; None where it is not installed."""
    try:
        import helm_python
    except ImportError:
        return None
    return helm_python


def by_library(values: dict[str, Any], name: str, namespace: str) -> dict[str, str]:
    """Render with Helm's library."""
    helm = library()
    try:
        with helm.Chart.load(CHART) as chart:
            return dict(chart.render(values=values, name=name, namespace=namespace))
    except helm.HelmError as error:
        raise ChartError(str(error)) from error


def by_command(values: dict[str, Any], name: str, namespace: str) -> dict[str, str]:
    """Render with the helm on PATH; without the notes, which it cannot print."""
    command = [HELM or "helm", "template", name, str(CHART), "-n", namespace, "--kube-version", KUBERNETES, "-f", "-"]
    done = subprocess.run(
        command, input=yaml.safe_dump(values), capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise ChartError(done.stderr)
    return {"all.yaml": done.stdout}


def rendered_from(files: dict[str, str]) -> Rendered:
    """Parse what Helm rendered."""
    manifests = [
        item
        for name, text in sorted(files.items())
        if name.endswith(".yaml")
        for item in yaml.safe_load_all(text)
        if item is not None
    ]
    return Rendered(manifests=manifests, notes=next((t for n, t in files.items() if n.endswith("NOTES.txt")), ""))
