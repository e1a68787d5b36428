"""What supervisor and plug-in agree on: the recipe that vLLM serves the base model under, in a file. Free of torch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from surogate_bench.contract import MODEL_CONFIG_FILE
from surogate_bench.errors import ConfigError
from surogate_bench.files import write_atomically
from surogate_bench.layout import run_name
from surogate_bench.recipes import ComputePrecision, Recipe, recipe_by_name
from surogate_bench.recipes.engines import AUTO
from surogate_bench.specs import RecipeSweep

QUANTIZATION = "surogate-bench-recipe"
"""Value of vLLM's ``--quantization``."""

CALIBRATING = "-calibrating"
"""End of the name of an adapter whose inputs are measured, so that the adapter of the rest of the name gets scales."""

CALIBRATED = "calibrated"
"""Key in the metadata of a file of input scales that were measured on prompts."""

_OWN_OPTIONS = frozenset({"--quantization", "-q", "--quantization-config"})
_FILE = "served-recipe.json"
_QUANTIZED = ("quantization_config", "compression_config")


class ServedRecipe(BaseModel):
    """A recipe, and the engine that is requested for its products."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Recipe
    engine: str = AUTO

    @property
    def has_products(self) -> bool:
        """Whether products differ from bf16: they are computed here then, and not by vLLM."""
        return self.recipe.compute is not ComputePrecision.BF16

    @property
    def scales_inputs(self) -> bool:
        """Whether inputs have scales that belong to an adapter."""
        return self.recipe.scales_inputs

    def write(self, folder: Path) -> Path:
        """Write the file for the plug-in; returns its path."""
        path = folder / _FILE
        write_atomically(path, self.model_dump_json(indent=2).encode())
        return path.resolve()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file."""
        return cls.model_validate_json(path.read_bytes())


def served_recipe(sweep: RecipeSweep, under: str | None) -> ServedRecipe | None:
    """Return the recipe to serve under; None where the base is served as it is published.

    Args:
        sweep: Its recipes come first, then the built-in ones.
        under: Name of a recipe.

    Raises:
        ConfigError: there is no such recipe.
    """
    if under is None:
        return None
    try:
        recipe = sweep.recipe(under)
    except KeyError:
        recipe = recipe_by_name(under)
    if not recipe.quantizes:
        return None
    for argument in sweep.serving.extra_args:
        if (option := argument.partition("=")[0].replace("_", "-")) in _OWN_OPTIONS:
            raise ConfigError(
                f"{option} cannot be given where the base is served under a recipe ({recipe.name})",
                field="serving.extra_args",
                value=argument,
                remedy="Remove it, or serve the base as it is published.",
            )
    return ServedRecipe(recipe=recipe, engine=sweep.engine)


def read_config(model: Path) -> dict[str, Any]:
    """Return the content of a model's ``config.json``."""
    config: dict[str, Any] = json.loads((model / MODEL_CONFIG_FILE).read_bytes())
    return config


def require_unquantized(model: Path, use: str) -> None:
    """Check that a model has weights that can be changed.

    Args:
        model: Folder of the model.
        use: What they are for, for messages, as in ``recipe fp8 starts from``.

    Raises:
        ConfigError: its checkpoint is quantized already.
    """
    config = read_config(model)
    for part in (config, config.get("text_config") or {}):
        for key in _QUANTIZED:
            if settings := part.get(key):
                method = settings.get("quant_method", "unknown") if isinstance(settings, dict) else "unknown"
                raise ConfigError(
                    f"the base is quantized already ({key}: {method}), and {use} bf16 weights",
                    field="model",
                    value=str(method),
                    remedy="Use the unquantized checkpoint that it was made from, or serve it as it is published.",
                )


def runs_trained_under(sweep: RecipeSweep, recipe: Recipe) -> frozenset[str]:
    """Return the runs of a sweep whose recipe differs from ``recipe`` in its names at most."""
    return frozenset(
        run_name(trained.name, seed)
        for trained in sweep.recipes
        for seed in sweep.seeds
        if _without_names(trained) == _without_names(recipe)
    )


def _without_names(recipe: Recipe) -> Recipe:
    return replace(recipe, name="recipe", title="")
