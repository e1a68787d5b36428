"""Checks that foreign adapters and foreign trainers share: their names, and the recipes that they state."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from surogate_bench.errors import ConfigError
from surogate_bench.recipes import RECIPES, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRow:
    """An entry of a sweep whose adapters other software trains."""

    kind: str
    """``adapter`` or ``trainer``; the list that it stands in is the plural."""
    name: str
    trained_under: str | None
    """Recipe, as the sweep states it."""
    runs: tuple[str, ...]
    """Names of its runs."""

    @property
    def field(self) -> str:
        """Setting of the entry, for messages."""
        return f"{self.kind}s.{self.name}"


def problem_of_rows(
    rows: Iterable[ForeignRow], recipes: Mapping[str, Recipe], *, taken: Iterable[str], own: bool
) -> ConfigError | None:
    """Return the error of the foreign rows of a sweep; None if they are valid.

    Args:
        rows: All of them.
        recipes: The sweep's, by name.
        taken: Names of its other rows and runs.
        own: Whether adapters are also scored under the recipe they were trained with.
    """
    names = set(taken)
    for row in rows:
        if clash := next((name for name in (row.name, *row.runs) if name in names), None):
            message, remedy = "is the name of another row or run of this sweep", f"Rename the {row.kind}."
            return ConfigError(message, field=f"{row.field}.name", value=clash, remedy=remedy)
        names |= {row.name, *row.runs}
        if problem := _problem_of_training(row, recipes, own=own):
            return problem
    return None


def _problem_of_training(row: ForeignRow, recipes: Mapping[str, Recipe], *, own: bool) -> ConfigError | None:
    name, known = row.trained_under, {recipe.name: recipe for recipe in RECIPES} | dict(recipes)
    field = f"{row.field}.trained_under"
    if name is not None and name not in known:
        return ConfigError(
            "there is no such recipe, neither in this sweep nor built in",
            field=field,
            value=name,
            remedy=f"Omit it if it is not known, or use {', '.join(sorted(known))}.",
        )
    if own and name is None:
        return ConfigError(
            f"serving.under contains own, but the recipe that this {row.kind} trains under is not known"
            if row.kind == "trainer"
            else "serving.under contains own, but the recipe that this adapter was trained under is not known",
            field=field,
            remedy="Set it, or name recipes in serving.under instead of own.",
        )
    if own and name not in recipes and known[str(name)].quantizes:
        return ConfigError(
            f"serving.under contains own, but the sweep does not have the recipe that this {row.kind} "
            f"{'trains' if row.kind == 'trainer' else 'was trained'} under",
            field=field,
            value=name,
            remedy="Add it to recipes, or name recipes in serving.under instead of own.",
        )
    return None
