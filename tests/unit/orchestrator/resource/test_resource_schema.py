"""The CustomResourceDefinition against the models that it is made from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from sweeps import small_document, small_sweep

from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench_orchestrator.resource.definition import definition, definition_yaml
from surogate_bench_orchestrator.resource.model import parse_resource, resource_of
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec
from surogate_bench_orchestrator.resource.schema import spec_schema

ROOT = Path(__file__).parents[4]
SHIPPED = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
SWEEPS = [path for path in SHIPPED if not load_sweep(path).trainers]


def nodes(schema: dict[str, Any], path: str = "spec") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            yield from nodes(schema[inner], f"{path}[]")


def test_the_file_in_the_chart_is_what_the_models_say() -> None:
    file = ROOT / "charts" / "files" / "recipesweeps.crd.yaml"
    assert file.read_text(encoding="utf-8") == definition_yaml(), "run `make reference`"
    assert yaml.safe_load(definition_yaml()) == definition()


def test_every_field_of_a_sweep_is_there_and_only_suspend_reuse_and_scheduling_are_added() -> None:
    properties = spec_schema()["properties"]
    assert set(properties) == set(RecipeSweep.model_fields) - {"name"} | {"suspend", "reuse", "scheduling"}
    assert set(properties["scheduling"]["properties"]) == set(SchedulingSpec.model_fields)


def test_the_schema_is_structural_and_bounded() -> None:
    for path, node in nodes(spec_schema()):
        assert "type" in node or node.get("x-kubernetes-preserve-unknown-fields"), path
        assert not {"$ref", "anyOf", "title", "const", "$defs"} & set(node), path
        if node.get("type") == "array":
            assert node["maxItems"] <= 200, path
        if node.get("type") == "string":
            assert "maxLength" in node or "enum" in node, path
        assert not isinstance(node.get("exclusiveMinimum"), float), path


def test_every_field_but_suspend_and_scheduling_is_immutable() -> None:
    schema = spec_schema()
    whole = [rule["rule"] for rule in schema["x-kubernetes-validations"]]
    for name, field in schema["properties"].items():
        own = [rule["rule"] for rule in field.get("x-kubernetes-validations", ())]
        protected = "self == oldSelf" in own or f"[dyn(self).{name}] == [dyn(oldSelf).{name}]" in whole
        assert protected is (name not in {"suspend", "reuse", "scheduling"}), name


def test_a_sweep_with_trainers_fits_the_schema_and_their_images_are_checked_by_it() -> None:
    command = ["python3", "-c", "x" * 4000]
    sweep = small_sweep(trainers=[{"name": "other", "image": "registry.io:5000/team/other:1", "command": command}])
    spec = resource_of(sweep)["spec"]
    schema = jsonschema.Draft4Validator(spec_schema())
    schema.validate(spec)
    spec["trainers"][0]["image"] = "Other:1"
    assert [error.path.pop() for error in schema.iter_errors(spec)] == ["image"]


def test_defaults_are_those_of_the_models() -> None:
    required = {"model": {"builtin": "tiny-qwen3-en"}, "recipes": ["bf16"], "training": {"max_steps": 1}}
    data = {"hub": "a/b"}
    bare = {"metadata": {"name": "small"}, "spec": {**required, "data": data}}
    spelled_out = {"metadata": {"name": "small"}, "spec": defaulted(spec_schema(), bare["spec"])}
    assert parse_resource(spelled_out).sweep == parse_resource(bare).sweep
    assert spelled_out["spec"]["serving"]["max_loras"] == 4
    assert spelled_out["spec"]["training"]["lora"]["r"] == 16
    assert spelled_out["spec"]["suspend"] is False


@pytest.mark.parametrize(
    "evaluation",
    [
        {"tasks": [{"name": "en_gsm8k"}, {"name": "arc_easy"}]},
        {"tasks": [{"name": "en_gsm8k"}, {"name": "arc_easy", "primary": True}], "max_gen_toks": 9},
        {"tasks": [{"name": "en_gsm8k", "max_gen_toks": 9, "num_fewshot": 2, "keep_from_task": ["prompt"]}]},
        {"tasks": [{"name": "en_gsm8k"}], "keep_from_task": ["prompt"], "num_fewshot": 2},
        {"task": "en_gsm8k", "tasks": [{"name": "b", "data": {"builtin": "word-problems-en", "test_size": 2}}]},
        {"tasks": [{"name": "b"}, {"name": "en_gsm8k", "data": {"hub": "a/b"}}]},
        {},
    ],
)
def test_tasks_mean_the_same_in_a_cluster_as_on_one_machine(evaluation: dict[str, Any]) -> None:
    spec = defaulted(spec_schema(), small_document(evaluation=evaluation))
    jsonschema.Draft4Validator(spec_schema()).validate({name: spec[name] for name in spec.keys() - {"name"}})
    stored = parse_resource({"metadata": {"name": spec.pop("name")}, "spec": spec}).sweep
    assert stored == small_sweep(evaluation=evaluation)
    assert parse_resource(resource_of(stored)).sweep.spec_hash == stored.spec_hash


def defaulted(schema: dict[str, Any], value: Any) -> Any:
    """Fill defaults in as the API server does."""
    if isinstance(value, list):
        return [defaulted(schema.get("items", {}), inner) for inner in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    filled = {name: field["default"] for name, field in properties.items() if "default" in field} | value
    return {name: defaulted(properties.get(name, {}), inner) for name, inner in filled.items()}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_shipped_sweeps_fit_the_schema(path: Path) -> None:
    jsonschema.Draft4Validator(spec_schema()).validate(resource_of(load_sweep(path))["spec"])


def test_the_names_and_columns_are_these() -> None:
    spec = definition()["spec"]
    assert spec["names"]["shortNames"] == ["sweep", "sweeps", "rsw"]
    (version,) = spec["versions"]
    assert [column["name"] for column in version["additionalPrinterColumns"]] == [
        "Phase", "Done", "Failed", "Highest so far", "Age",
    ]  # fmt: skip
    assert version["subresources"] == {"status": {}}
