"""Recipes in a sweep: by name, or defined by their fields."""

from typing import Annotated

from pydantic import BeforeValidator

from surogate_bench.errors import ConfigError
from surogate_bench.recipes import Recipe, recipe_by_name
from surogate_bench.specs.base import NO_BOOLEAN


def _named_or_spelled_out(value: object) -> object:
    if isinstance(value, dict) and (booleans := [name for name, given in value.items() if isinstance(given, bool)]):
        raise ValueError(f"{booleans[0]} {NO_BOOLEAN}")
    if not isinstance(value, str):
        return value
    try:
        return recipe_by_name(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


RecipeEntry = Annotated[Recipe, BeforeValidator(_named_or_spelled_out)]
"""A recipe in YAML: ``fp8``, or a mapping with the fields of :class:`surogate_bench.recipes.Recipe`."""

__all__ = ["RecipeEntry"]
