"""The sweep itself."""

import hashlib
import json
from collections.abc import Iterator
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from surogate_bench.errors import ConfigError
from surogate_bench.layout import BASE_RUN, run_name
from surogate_bench.specs.adapters import ForeignAdapter
from surogate_bench.specs.base import Name, Spec
from surogate_bench.specs.data import DataSpec
from surogate_bench.specs.evaluation import ALL, AS_PUBLISHED, OWN, EvaluationSpec, ServingSpec
from surogate_bench.specs.foreign_rows import ForeignRow, problem_of_rows
from surogate_bench.specs.model import ModelSpec
from surogate_bench.specs.recipes import RecipeEntry
from surogate_bench.specs.trainers import ForeignTrainer
from surogate_bench.specs.training import TrainingSpec

EACH_SEED_ONCE = "seeds: each may appear once"


class Placement(StrEnum):
    """When adapters are served relative to training."""

    AUTO = "auto"
    PHASED = "phased"  # train everything, then serve; one accelerator is enough
    OVERLAPPED = "overlapped"  # evaluate each adapter as it arrives: needs an accelerator for the server


_UNDER = "serving.under"

EngineName = Literal["auto", "emulated", "torch", "transformer-engine"]


class RecipeSweep(Spec):
    """One experiment: the same training under several precision recipes, scored by the same evaluation."""

    name: Name = Field(description="Name of the sweep; part of the names of results, processes and Kubernetes objects.")
    description: str = Field("", description="Shown in the report.")
    model: ModelSpec
    data: DataSpec
    training: TrainingSpec
    recipes: tuple[RecipeEntry, ...] = Field(min_length=1, description="Recipes by name, or defined by their fields.")
    adapters: tuple[ForeignAdapter, ...] = Field(
        (),
        max_length=64,
        exclude_if=lambda value: not value,  # leaves the hash of sweeps without it unchanged
        description="Adapters that were trained elsewhere, scored along with the recipes.",
    )
    trainers: tuple[ForeignTrainer, ...] = Field(
        (),
        max_length=64,
        exclude_if=lambda value: not value,
        description="Commands of other software that train further rows, once per seed.",
    )
    seeds: tuple[Annotated[int, Field(ge=0, le=2**32 - 1)], ...] = Field(
        (0,),
        min_length=1,
        description="Each recipe is trained once per seed; a test of whether recipes differ needs two or more.",
    )
    engine: EngineName = Field(
        "auto", description="Engine for low-precision products; auto selects the fastest that computes them exactly."
    )
    serving: ServingSpec = ServingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    placement: Placement = Placement.AUTO
    max_attempts: int = Field(3, ge=1, le=20, description="Maximum number of attempts of each stage.")
    train_timeout_s: float = Field(86400.0, gt=0, description="Seconds for one training run.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [recipe.name for recipe in self.recipes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"recipes: {', '.join(twice)} appears more than once")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(EACH_SEED_ONCE)
        lora, highest = self.training.lora, self.serving.max_lora_rank
        if lora.largest_rank > highest:
            field = "r" if lora.r > highest else "rank_pattern"
            raise ValueError(
                f"training.lora.{field} is {lora.largest_rank}, above serving.max_lora_rank {highest}: "
                f"vLLM would refuse the adapter. Raise max_lora_rank or lower {field}"
            )
        return self

    @model_validator(mode="after")
    def _serving_under_names_recipes(self) -> Self:
        for name in self.serving.under:
            if error := self._problem_of_way(name):
                raise ValueError(str(error)) from error
        return self

    def _problem_of_way(self, name: str) -> ConfigError | None:
        """Return the error of a name in ``serving.under``; None if it is valid."""
        recipes = {recipe.name: recipe for recipe in self.recipes}
        keywords = (AS_PUBLISHED, OWN, ALL)
        if name not in keywords and name not in recipes:
            likely = get_close_matches(name, (*keywords, *recipes), n=1)
            listed = ", ".join(dict.fromkeys((*keywords, *recipes)))
            remedy = f"Did you mean {likely[0]}?" if likely else f"Use {listed}."
            return ConfigError("there is no such recipe in this sweep", field=_UNDER, value=name, remedy=remedy)
        is_ambiguous = name in recipes and (name in {OWN, ALL} or (name == AS_PUBLISHED and recipes[name].quantizes))
        if is_ambiguous and len(self.serving.under) > 1:
            message = f"means something else here than the recipe {name} of this sweep"
            return ConfigError(message, field=_UNDER, value=name, remedy="Rename the recipe.")
        return None

    @model_validator(mode="after")
    def _foreign_rows_fit_the_sweep(self) -> Self:
        recipes = {recipe.name: recipe for recipe in self.recipes}
        runs = {run_name(recipe, seed) for recipe in recipes for seed in self.seeds}
        problem = problem_of_rows(
            self._foreign_rows(), recipes, taken={BASE_RUN, *recipes, *runs}, own=OWN in self.serving.under
        )
        if problem:
            raise ValueError(str(problem)) from problem
        return self

    def _foreign_rows(self) -> Iterator[ForeignRow]:
        for each in self.trainers:
            runs = tuple(run_name(each.name, seed) for seed in self.seeds)
            yield ForeignRow(kind="trainer", name=each.name, trained_under=each.trained_under, runs=runs)
        for one in self.adapters:
            yield ForeignRow(kind="adapter", name=one.name, trained_under=one.trained_under, runs=())

    @property
    def spec_hash(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON: the identity of the experiment's results."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def needs_test_split(self) -> bool:
        """Whether the data set itself must have a test split."""
        return "data" not in self.evaluation.keep_from_task and self.data.hold_out.test is None

    def of_task(self, task: str | None) -> Self:
        """Return the sweep as if a further task were its primary one, with the data that the task scores.

        It serves to score and to describe that task; its hash is that of no sweep.

        Args:
            task: Name of a further task; None for the primary one, and the sweep as it is.

        Raises:
            KeyError: there is no further task of that name.
        """
        if task is None:
            return self
        entry = self.evaluation.entry(task)
        rendering = {"chat_template_arguments": self.data.chat_template_arguments}
        data = self.data if entry.data is None else entry.data.as_data.model_copy(update=rendering)
        return self.model_copy(update={"evaluation": self.evaluation.of_task(task), "data": data})

    def adapter(self, name: str) -> ForeignAdapter:
        """Return a foreign adapter of this sweep by name.

        Raises:
            KeyError: the sweep has none of that name.
        """
        return {adapter.name: adapter for adapter in self.adapters}[name]

    def trainer(self, name: str) -> ForeignTrainer:
        """Return a foreign trainer of this sweep by name.

        Raises:
            KeyError: the sweep has none of that name.
        """
        return {trainer.name: trainer for trainer in self.trainers}[name]

    @property
    def trained(self) -> tuple[RecipeEntry | ForeignTrainer, ...]:
        """What is trained once per seed: recipes, then foreign trainers."""
        return (*self.recipes, *self.trainers)

    def recipe(self, name: str) -> RecipeEntry:
        """Return a recipe of this sweep by name.

        Raises:
            KeyError: the sweep has none of that name.
        """
        return {recipe.name: recipe for recipe in self.recipes}[name]

    def require_recipe(self, name: str, *, field: str) -> RecipeEntry:
        """Return a recipe that ``field`` of a request names.

        Raises:
            ConfigError: the sweep has none of that name.
        """
        try:
            return self.recipe(name)
        except KeyError as error:
            raise ConfigError(
                "the sweep has no such recipe",
                field=field,
                value=name,
                remedy=f"It has {', '.join(recipe.name for recipe in self.recipes)}.",
            ) from error

    @property
    def served_under(self) -> tuple[str | None, ...]:
        """Ways in which the base is served: as published (None), then recipes in the sweep's order.

        A recipe that quantizes nothing is the base as published.
        """
        asked = set(self.serving.under) - {AS_PUBLISHED}
        every = bool(asked & {OWN, ALL})
        return (None, *(each.name for each in self.recipes if each.quantizes and (every or each.name in asked)))

    def scored_under(self, recipe: str | None) -> tuple[str | None, ...]:
        """Ways of serving on which an adapter is scored, as in :attr:`served_under`.

        Args:
            recipe: Name of the recipe it was trained with, empty if that is not known; None for the unmodified base
                model, scored on every way.
        """
        if recipe is None or ALL in self.serving.under:
            return self.served_under
        asked = {*self.serving.under, *((recipe,) if OWN in self.serving.under else ())}
        return tuple(each for each in self.served_under if each is None or each in asked)

    def scored_merged(self, recipe: str | None) -> tuple[str | None, ...]:
        """Ways of serving on which an adapter is also scored merged into the base; none for the unmodified model.

        Args:
            recipe: The recipe, as in :meth:`scored_under`.
        """
        return self.scored_under(recipe) if self.serving.merged and recipe is not None else ()
