"""What a precision recipe is: how the frozen base is stored, times how its matrix products are computed."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import ConfigDict

from surogate_bench.errors import ConfigError

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class WeightStorage(StrEnum):
    """Format in which the frozen weights of the transformer blocks' linear layers are kept."""

    BF16 = "bf16"
    FP8_128X128 = "fp8-128x128"  # E4M3 with one fp32 scale per 128x128 tile
    NVFP4 = "nvfp4"  # E2M1 with one E4M3 scale per 16 values and one fp32 scale per tensor
    NF4 = "nf4"  # bitsandbytes 4-bit NormalFloat with double quantization


class ComputePrecision(StrEnum):
    """Precision of the operands of forward products and of the products that give input gradients."""

    BF16 = "bf16"
    FP8_HYBRID = "fp8-hybrid"  # E4M3 inputs (delayed scaling) and weights, E5M2 gradients
    NVFP4 = "nvfp4"  # 16-value E2M1 blocks; 4/6 scaling forward, stochastic rounding of gradients


_AMAX_HISTORY_LENGTH = 1024

_COMPUTE_CAPABILITY: dict[ComputePrecision, tuple[int, int] | None] = {
    ComputePrecision.BF16: None,
    ComputePrecision.FP8_HYBRID: (8, 9),
    ComputePrecision.NVFP4: (10, 0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One precision recipe; embeddings, norms, the output head and all of LoRA stay in bf16.

    Raises:
        ConfigError: the fields contradict one another, or one has no effect.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    """Short name: lower-case letters, digits and dashes; part of run names and paths."""
    title: str
    """How tables and charts call it."""
    weight_storage: WeightStorage
    """Format of the frozen weights."""
    compute: ComputePrecision
    """Precision of the matrix products with those weights."""
    fp8_amax_history_length: int = _AMAX_HISTORY_LENGTH
    """Optimizer steps that delayed scaling looks back on; Transformer Engine's default."""
    fp8_margin: int = 0
    """Powers of two kept free above the largest value seen by delayed scaling."""
    fp4_profile: Literal["paper", "surogate"] = "paper"
    """Weights under nvfp4 compute: ``paper`` has 16x16 blocks with 4/6 scaling, shared by W and its transpose;
    ``surogate`` has 1x16 blocks, 4/6 for W only, and quantizes the transpose by itself."""
    skip_first_layers: int = 0
    """Transformer blocks at the start that stay in bf16."""
    skip_last_layers: int = 0
    """Transformer blocks at the end that stay in bf16."""

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_combination()

    @property
    def min_compute_capability(self) -> tuple[int, int] | None:
        """CUDA compute capability whose tensor cores multiply in this precision; None if any device does.

        Engines that use such tensor cores require it; emulation does not.
        """
        return _COMPUTE_CAPABILITY[self.compute]

    @property
    def quantizes(self) -> bool:
        """Whether anything differs from plain bf16."""
        return (self.weight_storage, self.compute) != (WeightStorage.BF16, ComputePrecision.BF16)

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
        if self.weight_storage is WeightStorage.NF4 and self.compute is not ComputePrecision.BF16:
            raise self._error(
                "cannot be combined with nf4 storage, whose products bitsandbytes computes in bf16",
                field="compute",
                remedy="Use compute: bf16, or another weight_storage.",
            )
        history_changed = self.fp8_amax_history_length != _AMAX_HISTORY_LENGTH
        if (history_changed or self.fp8_margin) and self.compute is not ComputePrecision.FP8_HYBRID:
            raise self._error(
                f"has no effect under {self.compute} compute",
                field="fp8_amax_history_length" if history_changed else "fp8_margin",
                remedy="Remove it or use fp8-hybrid.",
            )
        if self.fp4_profile != "paper" and self.compute is not ComputePrecision.NVFP4:
            raise self._error(
                f"has no effect under {self.compute} compute", field="fp4_profile", remedy="Remove it or use nvfp4."
            )
        if not self.quantizes and (self.skip_first_layers or self.skip_last_layers):
            field = "skip_first_layers" if self.skip_first_layers else "skip_last_layers"
            raise self._error("has no effect where nothing is quantized", field=field, remedy="Remove it.")

    def _error(self, message: str, *, field: str, remedy: str) -> ConfigError:
        value = getattr(self, field)
        shown = value.value if isinstance(value, StrEnum) else value
        return ConfigError(message, field=f"recipe {self.name}: {field}", value=shown, remedy=remedy)
