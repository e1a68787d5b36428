"""A precision recipe: the storage format of the frozen base, and the precision of the products with it."""

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from surogate_bench.errors import ConfigError
from surogate_bench.recipes.precisions import COMPUTES, STORAGES, ComputePrecision, WeightStorage

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_AMAX_HISTORY_LENGTH = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One precision recipe; embeddings, norms, the output head and all of LoRA stay in bf16.

    Raises:
        ConfigError: fields contradict each other, or one has no effect.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    """Short name: lower-case letters, digits and dashes; part of run names and paths."""
    title: str
    """Name in tables and charts."""
    weight_storage: WeightStorage
    """Format of the frozen weights."""
    compute: ComputePrecision
    """Precision of the matrix products with those weights."""
    fp8_amax_history_length: int = _AMAX_HISTORY_LENGTH
    """Optimizer steps in the history of delayed scaling; Transformer Engine's default."""
    fp8_margin: int = 0
    """Powers of two kept free above the largest value in the history of delayed scaling."""
    fp4_profile: Literal["paper", "surogate"] = "paper"
    """Weights under nvfp4 compute: paper (16x16 blocks with 4/6 scaling, shared by W and its transpose), or surogate
    (1x16 blocks, 4/6 for W only; the transpose is quantized separately)."""
    skip_first_layers: int = 0
    """Transformer blocks at the start that stay in bf16."""
    skip_last_layers: int = 0
    """Transformer blocks at the end that stay in bf16."""
    on_indivisible: Annotated[
        Literal["refuse", "keep", "pad"],
        Field(exclude_if=lambda value: value == "refuse"),  # leaves the hash of recipes without it unchanged
    ] = "refuse"
    """Layers with a dimension that is not divisible by the block size: refuse (the model), keep (them in bf16),
    or pad (their last blocks with zeros). The report lists what was kept or padded."""

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_combination()

    @property
    def quantizes(self) -> bool:
        """Whether storage or products differ from bf16."""
        return (self.weight_storage, self.compute) != (WeightStorage.BF16, ComputePrecision.BF16)

    @property
    def scales_inputs(self) -> bool:
        """Whether training ends with a scale for each layer's inputs, which serving under the recipe needs."""
        return COMPUTES[self.compute].scales_inputs

    @property
    def is_stochastic(self) -> bool:
        """Whether products draw random numbers in training."""
        return COMPUTES[self.compute].is_stochastic

    @property
    def multiples(self) -> tuple[int, int]:
        """What a layer's inputs and outputs must be divisible by."""
        width = COMPUTES[self.compute].width_multiple
        return max(STORAGES[self.weight_storage].input_multiple, width), width

    def fits(self, inputs: int, outputs: int) -> bool:
        """Return whether the blocks of the recipe's formats divide the dimensions of a layer."""
        of_inputs, of_outputs = self.multiples
        return inputs % of_inputs == 0 and outputs % of_outputs == 0

    def _check_ranges(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                "is not a usable recipe name",
                field="recipe.name",
                value=self.name,
                remedy="Use up to 40 lower-case letters, digits and dashes, starting and ending with no dash.",
            )
        for field, least in (
            ("fp8_amax_history_length", 1),
            ("fp8_margin", 0),
            ("skip_first_layers", 0),
            ("skip_last_layers", 0),
        ):
            value = getattr(self, field)
            if value < least:
                raise self._error("is too small", field=field, remedy=f"Use a whole number of at least {least}.")

    def _check_combination(self) -> None:
        storage = STORAGES[self.weight_storage]
        if self.compute not in storage.compute:
            allowed = " or ".join(sorted(storage.compute))
            engine = storage.engine.engine if storage.engine else "every engine"
            raise self._error(
                f"cannot be combined with {self.weight_storage} storage, whose products {engine} computes in {allowed}",
                field="compute",
                remedy=f"Use compute: {allowed}, or another weight_storage.",
            )
        self._check_settings()
        if not self.quantizes and (self.skip_first_layers or self.skip_last_layers):
            field = "skip_first_layers" if self.skip_first_layers else "skip_last_layers"
            raise self._error("has no effect where nothing is quantized", field=field, remedy="Remove it.")

    def _check_settings(self) -> None:
        """Refuse a setting of another compute precision, or of formats with blocks."""
        if self.on_indivisible != "refuse" and self.multiples == (1, 1):
            raise self._error(
                "has no effect, because these formats fit every layer", field="on_indivisible", remedy="Remove it."
            )
        changed = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        for precision, descriptor in COMPUTES.items():
            foreign = [name for name in changed if name in descriptor.settings]
            if foreign and precision is not self.compute:
                raise self._error(
                    f"has no effect under {self.compute} compute",
                    field=foreign[0],
                    remedy=f"Remove it or use {precision}.",
                )

    def _error(self, message: str, *, field: str, remedy: str) -> ConfigError:
        value = getattr(self, field)
        shown = value.value if isinstance(value, StrEnum) else value
        return ConfigError(message, field=f"recipe {self.name}: {field}", value=shown, remedy=remedy)
