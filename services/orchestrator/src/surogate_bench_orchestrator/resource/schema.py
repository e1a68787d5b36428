"""The schema of a RecipeSweep's spec for the API server, generated from the Pydantic models."""

from collections.abc import Collection, Mapping
from typing import Any

from surogate_bench.recipes import RECIPES
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.specs.tasks import TaskEntry
from surogate_bench_orchestrator.resource.rules import FIELD_RULES, RULES, immutable, immutable_untyped
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec

Schema = dict[str, Any]

_UNTYPED = "recipes"
_MAX_LENGTH, _MAX_ITEMS, _MAX_PROPERTIES = 512, 64, 64
_LENGTHS = {
    ("RecipeSweep", "description"): 4096,
    ("DataSpec", "prompt"): 8192,
    ("DataSpec", "completion"): 8192,
    ("ForeignTrainer", "command"): 4096,
    ("ForeignTrainer", "environment"): 4096,
}
"""Maximum lengths that differ from the default. The API server needs bounds to estimate the cost of rules."""

_ITEMS = {("RecipeSweep", "seeds"): 200, ("RecipeSweep", "trainers"): 16}
_MINIMUM_OF_ITEMS = {("RecipeSweep", "seeds"): 0}
_OF_TASKS = {"task", *(EvaluationSpec.model_fields.keys() & TaskEntry.model_fields.keys())}
_WITHOUT_DEFAULT = {
    "EvaluationSpec": _OF_TASKS,
    "TaskEntry": TaskEntry.model_fields.keys(),
}
"""Settings whose absence has a meaning, by model: without a task the first of the list is primary, and what it is given
must not be given together with it."""
_KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minLength", "minItems")


def spec_schema() -> Schema:
    """Build the structural OpenAPI v3 schema of ``spec``."""
    spec = _Converter(RecipeSweep.model_json_schema()).root("RecipeSweep")
    properties = {name: field for name, field in spec["properties"].items() if name != "name"}
    for name, field in properties.items():
        if name != _UNTYPED:
            field["x-kubernetes-validations"] = [*field.get("x-kubernetes-validations", ()), immutable(name)]
    scheduling = _Converter(SchedulingSpec.model_json_schema()).root("SchedulingSpec")
    return {
        "type": "object",
        "description": "The experiment; only suspend, reuse and scheduling can be changed.",
        "required": [name for name in spec["required"] if name != "name"],
        "properties": {
            **properties,
            "suspend": {
                "type": "boolean",
                "default": False,
                "description": "Stop running tasks and start none; false resumes the sweep.",
            },
            "reuse": {
                "type": "boolean",
                "default": True,
                "description": "Reuse results of equal stages of other sweeps in the store; if false, compute all.",
            },
            "scheduling": scheduling,
        },
        "x-kubernetes-validations": [*spec.get("x-kubernetes-validations", ()), immutable_untyped(_UNTYPED)],
    }


class _Converter:
    """Converts a model's JSON schema to a structural schema: no references, no null, no unknown keywords."""

    def __init__(self, document: Schema) -> None:
        self._document = document

    def root(self, model: str) -> Schema:
        """Convert the document's own model."""
        return self._object(self._document, model)

    def _object(self, source: Schema, model: str) -> Schema:
        made: Schema = {"type": "object"}
        if text := _prose(source.get("description", "")):
            made["description"] = text
        if required := source.get("required"):
            made["required"] = list(required)
        made["properties"] = {name: self._field(field, (model, name)) for name, field in source["properties"].items()}
        if model in RULES:
            made["x-kubernetes-validations"] = [dict(rule) for rule in RULES[model]]
        return made

    def _field(self, source: Schema, at: tuple[str, str]) -> Schema:
        source = _without_null(source)
        made = self._recipes(source) if at == ("RecipeSweep", _UNTYPED) else self._value(source, at)
        if text := _prose(source.get("description", "")):
            made["description"] = text
        default = None if at[1] in _WITHOUT_DEFAULT.get(at[0], ()) else source.get("default")
        if default is not None:
            made["default"] = _given(default, _WITHOUT_DEFAULT.get(_name_of(source), ()))
        if at in FIELD_RULES:
            made["x-kubernetes-validations"] = [dict(rule) for rule in FIELD_RULES[at]]
        return made

    def _value(self, source: Schema, at: tuple[str, str]) -> Schema:
        if not source:  # any JSON
            return {"x-kubernetes-preserve-unknown-fields": True}
        if "$ref" in source:
            name = _name_of(source)
            target = self._document["$defs"][name]
            return self._object(target, name) if "properties" in target else self._value(target, at)
        made = {key: source[key] for key in _KEPT if key in source}
        if "const" in source:
            made["enum"] = [source["const"]]
        made |= _exclusive_bounds(source)
        return made | self._bounds(source, at)

    def _bounds(self, source: Schema, at: tuple[str, str]) -> Schema:
        kind = source["type"]
        if kind == "string" and "enum" not in source:
            return {"maxLength": _LENGTHS.get(at, _MAX_LENGTH)}
        if kind == "integer":
            return {"format": "int64"}
        if kind == "array":
            items = self._value(source["items"], at)
            if at in _MINIMUM_OF_ITEMS:
                items["minimum"] = _MINIMUM_OF_ITEMS[at]
            most = _ITEMS.get(at, min(source.get("maxItems", _MAX_ITEMS), _MAX_ITEMS))
            return {"items": items, "maxItems": most, "x-kubernetes-list-type": "atomic"}
        if kind == "object":
            return {
                "additionalProperties": self._value(source["additionalProperties"], at),
                "maxProperties": _MAX_PROPERTIES,
            }
        return {}

    def _recipes(self, source: Schema) -> Schema:
        """Return the schema of names or objects: keywords for strings do not apply to objects, and vice versa."""
        spelled_out = self._object(self._document["$defs"]["Recipe"], "Recipe")
        for field in spelled_out["properties"].values():
            field.pop("default", None)
        names = "|".join(recipe.name for recipe in RECIPES)
        return {
            "type": "array",
            "minItems": source["minItems"],
            "maxItems": _MAX_ITEMS,
            "x-kubernetes-list-type": "atomic",
            "items": {
                "x-kubernetes-preserve-unknown-fields": True,
                "description": "The name of a built-in recipe, or the fields of a recipe.",
                "pattern": f"^({names})$",
                "required": spelled_out["required"],
                "properties": spelled_out["properties"],
            },
        }


def _without_null(source: Schema) -> Schema:
    """Return the schema without null: an optional field is left out instead."""
    if "anyOf" not in source:
        return source
    (present,) = (option for option in source["anyOf"] if option.get("type") != "null")
    return {**present, **{key: value for key, value in source.items() if key not in {"anyOf", "default"}}}


def _name_of(source: Schema) -> str:
    """Return the name of the model that a schema refers to; empty if it refers to none."""
    return str(source.get("$ref", "")).rpartition("/")[2]


def _given(default: Any, left_out: Collection[str] = ()) -> Any:  # noqa: ANN401 - any JSON
    """Return a default without its null fields and those that are left out; rules are checked on it unchanged."""
    if not isinstance(default, dict):
        return default
    return {name: _given(value) for name, value in default.items() if value is not None and name not in left_out}


def _exclusive_bounds(source: Mapping[str, Any]) -> Schema:
    """Return exclusive bounds as in OpenAPI 3.0, where they are a Boolean next to the bound."""
    made: Schema = {}
    for bound, excluded in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if excluded in source:
            made |= {bound: source[excluded], excluded: True}
    return made


def _prose(docstring: str) -> str:
    """Return the part of a docstring for users, with each paragraph on one line."""
    text = docstring.partition("\nRaises:")[0].replace("``", "`")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
