"""The schema of a RecipeSweep's status, generated from :class:`SweepStatus`."""

from typing import Any

from surogate_bench_orchestrator.resource.status import SweepStatus

Schema = dict[str, Any]

_TYPE_KEYWORDS = ("type", "format", "enum", "minimum", "maxLength")


def status_schema() -> Schema:
    """Build the structural OpenAPI v3 schema of ``status``."""
    document = SweepStatus.model_json_schema(by_alias=True)
    return {"type": "object", "description": document["description"], "properties": _properties(document, document)}


def _properties(model: Schema, document: Schema) -> Schema:
    return {name: _field(field, document) for name, field in model["properties"].items()}


def _field(source: Schema, document: Schema) -> Schema:
    source = {**source, **_present(source)}
    made = {key: source[key] for key in _TYPE_KEYWORDS if key in source}
    if source["type"] == "integer":
        made["format"] = "int64"
    if "description" in source:
        made["description"] = source["description"]
    if "additionalProperties" in source:
        made["additionalProperties"] = {"type": source["additionalProperties"]["type"]}
    if source["type"] == "array":
        made["items"] = _item(document["$defs"][source["items"]["$ref"].rsplit("/", 1)[-1]], document)
    return made | {key: value for key, value in source.items() if key.startswith("x-kubernetes-")}


def _item(model: Schema, document: Schema) -> Schema:
    return {"type": "object", "required": model["required"], "properties": _properties(model, document)}


def _present(source: Schema) -> Schema:
    """Return the type of an optional field: null is not written, the field is left out instead."""
    return next((option for option in source.get("anyOf", ()) if option["type"] != "null"), {})
