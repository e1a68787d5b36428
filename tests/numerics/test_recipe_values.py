"""The seven recipes, and what a spelled-out one may say."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from surogate_bench.errors import ConfigError
from surogate_bench.recipes import RECIPES, ComputePrecision, Recipe, WeightStorage, recipe_by_name
from surogate_bench.recipes.engines import implemented_engines, required_capability, select_support, supported_engines
from surogate_bench.recipes.precisions import COMPUTES, STORAGES

ADAPTER = TypeAdapter(Recipe)
SPELLED_OUT = sorted((Path(__file__).parents[2] / "configs" / "recipes").glob("*.yaml"))
MINIMAL = {"name": "mine", "title": "Mine", "weight_storage": "bf16", "compute": "fp8-hybrid"}


def test_the_seven_recipes_are_those_of_the_published_table() -> None:
    assert [(recipe.title, recipe.name, recipe.weight_storage.value, recipe.compute.value) for recipe in RECIPES] == [
        ("BF16", "bf16", "bf16", "bf16"),
        ("FP8", "fp8", "bf16", "fp8-hybrid"),
        ("FP4", "fp4", "bf16", "nvfp4"),
        ("QBnB", "qbnb", "nf4", "bf16"),
        ("QFP8 + fp8-hybrid", "qfp8-fp8-hybrid", "fp8-128x128", "fp8-hybrid"),
        ("QFP8 + bf16", "qfp8-bf16", "fp8-128x128", "bf16"),
        ("QFP4", "qfp4", "nvfp4", "fp8-hybrid"),
    ]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_is_found_by_name_and_survives_json(recipe: Recipe) -> None:
    assert recipe_by_name(recipe.name) is recipe
    assert ADAPTER.validate_json(ADAPTER.dump_json(recipe)) == recipe


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'fp16'.*bf16, fp8, fp4, qbnb, qfp8-fp8-hybrid, qfp8-bf16, qfp4"):
        recipe_by_name("fp16")


@pytest.mark.parametrize("path", SPELLED_OUT, ids=lambda path: path.stem)
def test_every_spelled_out_recipe_is_valid_and_named_like_its_file(path: Path) -> None:
    assert ADAPTER.validate_python(yaml.safe_load(path.read_text(encoding="utf-8"))).name == path.stem


def test_the_published_fp4_recipe_leaves_the_last_four_blocks_in_bf16() -> None:
    published = next(path for path in SPELLED_OUT if path.stem == "fp4-published")
    assert ADAPTER.validate_python(yaml.safe_load(published.read_text(encoding="utf-8"))).skip_last_layers == 4
    assert recipe_by_name("fp4").skip_last_layers == 0


def test_hardware_requirements_are_those_of_the_engine_that_auto_prefers() -> None:
    assert {recipe.name: required_capability(recipe) for recipe in RECIPES} == {
        "bf16": None,
        "fp8": (8, 9),
        "fp4": None,
        "qbnb": None,
        "qfp8-fp8-hybrid": (8, 9),
        "qfp8-bf16": None,
        "qfp4": (8, 9),
    }


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_requested_engine_has_requirements_of_its_own(recipe: Recipe) -> None:
    assert required_capability(recipe, "emulated") is None
    on_tensor_cores = {ComputePrecision.FP8_HYBRID: (8, 9), ComputePrecision.NVFP4: (10, 0)}
    assert required_capability(recipe, "torch") == on_tensor_cores.get(recipe.compute)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_hardware_that_meets_the_requirement_runs_the_fastest_engine_and_other_hardware_runs_the_recipe_too(
    recipe: Recipe,
) -> None:
    engines = supported_engines(recipe)
    assert select_support(recipe, required_capability(recipe)) == engines[0]
    assert select_support(recipe, None) == select_support(recipe, (7, 5)) == engines[-1]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_auto_takes_no_engine_that_has_to_be_requested(recipe: Recipe) -> None:
    latest = (99, 0)
    on_request = [each for each in implemented_engines(recipe) if each.on_request]
    assert select_support(recipe, latest) not in on_request
    assert [select_support(recipe, latest, each.engine) for each in on_request] == on_request


@pytest.mark.parametrize("storage", WeightStorage)
@pytest.mark.parametrize("compute", ComputePrecision)
def test_every_combination_is_refused_by_name_or_has_an_engine_for_a_cpu(
    storage: WeightStorage, compute: ComputePrecision
) -> None:
    spelled_out = MINIMAL | {"weight_storage": storage, "compute": compute}
    if compute not in STORAGES[storage].compute:
        with pytest.raises(ConfigError, match=f"cannot be combined with {storage} storage"):
            ADAPTER.validate_python(spelled_out)
        return
    assert select_support(ADAPTER.validate_python(spelled_out), None) is not None


def test_every_setting_of_a_precision_is_a_field_of_a_recipe_and_belongs_to_one_precision() -> None:
    settings = [name for descriptor in COMPUTES.values() for name in descriptor.settings]
    assert len(set(settings)) == len(settings)
    assert set(settings) <= {field.name for field in fields(Recipe)}


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="skip_layers"):
        ADAPTER.validate_python(MINIMAL | {"skip_layers": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "My Recipe"}, "recipe.name: is not a usable recipe name"),
        ({"weight_storage": "nf4"}, "recipe mine: compute: cannot be combined with nf4 storage"),
        ({"fp8_amax_history_length": 0}, "recipe mine: fp8_amax_history_length: is too small"),
        ({"skip_last_layers": -1}, "recipe mine: skip_last_layers: is too small"),
        ({"fp4_profile": "surogate"}, "recipe mine: fp4_profile: has no effect under fp8-hybrid"),
        ({"compute": "nvfp4", "fp8_margin": 1}, "recipe mine: fp8_margin: has no effect under nvfp4"),
        ({"compute": "bf16", "fp8_amax_history_length": 8}, "recipe mine: fp8_amax_history_length: has no effect"),
        ({"compute": "bf16", "skip_first_layers": 1}, "recipe mine: skip_first_layers: has no effect where nothing"),
        ({"on_indivisible": "keep"}, "recipe mine: on_indivisible: has no effect, because these formats fit"),
        ({"on_indivisible": "pad"}, "recipe mine: on_indivisible: has no effect, because these formats fit"),
        ({"compute": "bf16", "skip_last_layers": 1}, "recipe mine: skip_last_layers: has no effect where nothing"),
    ],
)
def test_contradictory_settings_are_refused_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ADAPTER.validate_python(MINIMAL | changes)


def test_what_a_recipe_keeps_in_bf16_is_part_of_it_unless_it_refuses() -> None:
    recipe = ADAPTER.validate_python(MINIMAL | {"compute": "nvfp4", "on_indivisible": "keep"})
    assert recipe.fits(64, 32)
    assert not recipe.fits(64, 40)
    assert ADAPTER.dump_python(recipe)["on_indivisible"] == "keep"
    assert "on_indivisible" not in ADAPTER.dump_python(ADAPTER.validate_python(MINIMAL | {"on_indivisible": "refuse"}))
