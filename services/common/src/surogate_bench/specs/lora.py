"""The low-rank adapter that every recipe trains: layers, ranks and scales, with the meaning that PEFT gives them."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, field_validator

from surogate_bench.specs.base import Spec

ALL_LINEAR = "all-linear"
"""Stands for every linear layer of the transformer blocks."""
LLAMA_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of a block of Llama, and of the architectures that follow it."""
ALL_LINEAR_ALONE = f"{ALL_LINEAR} selects every layer: remove the other entries"

_LARGEST_RANK = 512
_GLOBAL_FLAGS = re.compile(r"\(\?[a-zA-Z]+\)")
_NUMBERED_GROUP = re.compile(r"\\([1-9])|\\.|\(\?\(([1-9])", re.DOTALL)
"""References such as ``\\1`` and ``(?(1)…)``; other escapes match without a group."""
_Value = TypeVar("_Value", int, float)


@cache
def _pattern(expression: str) -> re.Pattern[str]:
    """Compile what a layer's full name is matched against, as PEFT builds it from the keys of its tables.

    Raises:
        re.error: the expression is none, or cannot be part of another.
        OverflowError: it has too large a number of repetitions.
    """
    re.compile(expression)  # alone too: a)|(b would change the pattern around it
    return re.compile(rf"(.*\.)?({expression})$")


def _expression(text: str) -> str:
    if _GLOBAL_FLAGS.match(text):
        raise ValueError(f"{text!r} sets flags for the whole expression: write a group with flags, such as (?i:q_proj)")
    if any(map(any, _NUMBERED_GROUP.findall(text))):
        raise ValueError(f"{text!r} refers to a group by number, but PEFT inserts groups before it: name the group")
    try:
        _pattern(text)
    except (re.error, OverflowError) as error:
        raise ValueError(f"{text!r} is neither a layer's name nor a regular expression: {error}") from error
    return text


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Layers = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_expression)]
"""A layer's name from any dot on, or a regular expression that matches such a name as a whole."""
Rank = Annotated[int, Field(ge=1, le=_LARGEST_RANK)]
Alpha = Annotated[float, Field(gt=0)]


def _by_layer(description: str) -> dict[str, _Value]:
    """Make an optional table that is not dumped while it is empty: hashes of sweeps without it stay the same."""
    table: dict[str, _Value] = Field({}, exclude_if=lambda value: not value, max_length=64, description=description)
    return table


class LoraSpec(Spec):
    """The low-rank adapter (Hu et al., 2021)."""

    r: int = Field(16, ge=1, le=_LARGEST_RANK, description="Rank.")
    alpha: int = Field(32, ge=1, description="Scale of the update, which is multiplied by alpha / r.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout on the adapter's input.")
    target_modules: Annotated[tuple[Layers, ...], BeforeValidator(_as_list)] = Field(
        LLAMA_PROJECTIONS,
        min_length=1,
        description="Linear layers of the transformer blocks that get an adapter: names, such as q_proj or "
        "self_attn.q_proj; regular expressions that match the end of a name from a dot on, such as "
        "layers\\.[0-9]\\.mlp\\..*; or all-linear.",
    )
    use_rslora: bool = Field(
        False,
        exclude_if=lambda value: not value,  # leaves the hash of sweeps without it unchanged
        description="Multiply the update by alpha / sqrt(r) instead (rank-stabilized LoRA).",
    )
    rank_pattern: dict[Layers, Rank] = _by_layer(
        "Ranks that differ from r, by names or regular expressions as in target_modules. No layer may match two with "
        "different values, because the order of a mapping has no meaning."
    )
    alpha_pattern: dict[Layers, Alpha] = _by_layer("Values of alpha that differ, as in rank_pattern.")

    @field_validator("target_modules")
    @classmethod
    def _all_linear_alone(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if ALL_LINEAR in value and len(value) > 1:
            raise ValueError(ALL_LINEAR_ALONE)
        return value

    def targets(self, layer: str) -> bool:
        """Return whether a linear layer of the transformer blocks gets an adapter, by its full name."""
        return ALL_LINEAR in self.target_modules or any(is_layer(each, layer) for each in self.target_modules)

    def rank_of(self, layer: str) -> int:
        """Return the rank of a layer's adapter."""
        return _first(self.rank_pattern, layer, self.r)

    def alpha_of(self, layer: str) -> float:
        """Return the alpha of a layer's adapter."""
        return _first(self.alpha_pattern, layer, float(self.alpha))

    @property
    def largest_rank(self) -> int:
        """Highest rank that a layer may have."""
        return max(self.r, *self.rank_pattern.values(), 1)


def is_layer(expression: str, layer: str) -> bool:
    """Return whether a name or regular expression matches a layer's full name, by the rule of PEFT's patterns."""
    return _pattern(expression).match(layer) is not None


def _first(patterns: Mapping[str, _Value], layer: str, otherwise: _Value) -> _Value:
    return next((value for expression, value in patterns.items() if is_layer(expression, layer)), otherwise)
