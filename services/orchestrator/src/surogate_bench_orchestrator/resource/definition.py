"""The CustomResourceDefinition, as the chart installs it."""

from typing import Any

import yaml

from surogate_bench_orchestrator.resource import GROUP, KIND, PLURAL, VERSION
from surogate_bench_orchestrator.resource.rules import NAME_RULE
from surogate_bench_orchestrator.resource.schema import spec_schema
from surogate_bench_orchestrator.resource.status_schema import status_schema

_HEAD = "# Generated from the RecipeSweep model by `make reference`; do not edit.\n"


def definition() -> dict[str, Any]:
    """Build the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["sweep", "sweeps", "rsw"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                }
            ],
        },
    }


def definition_yaml() -> str:
    """Format it as a file of the chart."""
    document = yaml.dump(definition(), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=120)
    return f"{_HEAD}{document}"


class _PlainDumper(yaml.SafeDumper):
    """Repeats equal objects, instead of using anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - as in the base class
        return True


def _schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "One experiment: the same training under several precision recipes, scored by the same "
        "evaluation.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec_schema(),
            "status": status_schema(),
        },
        "x-kubernetes-validations": [NAME_RULE],
    }


def _columns() -> list[dict[str, Any]]:
    columns = [
        ("Phase", "string", ".status.phase"),
        ("Done", "string", ".status.progress"),
        ("Failed", "integer", ".status.failed"),
        ("Highest so far", "string", ".status.best"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ]
    return [{"name": name, "type": kind, "jsonPath": path} for name, kind, path in columns]
