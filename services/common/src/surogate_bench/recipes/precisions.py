"""Weight storages and compute precisions: one descriptor each, and every service derives its decisions from them.

A descriptor holds the engines that implement the format, the hardware that each of them needs, the cost of emulation
and the prose for tables and reports. What the format is in numbers is in ``surogate_bench_quantization``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

ComputeCapability = tuple[int, int]
"""CUDA compute capability: major, minor."""

TORCH, BITSANDBYTES, EMULATED = "torch", "bitsandbytes", "emulated"
TRANSFORMER_ENGINE = "transformer-engine"
"""Names of the engines of this version."""


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


class PrecisionSettings(Protocol):
    """Fields of a recipe that belong to one compute precision and have no effect under the others."""

    @property
    def fp8_amax_history_length(self) -> int:
        """Optimizer steps in the history of delayed scaling."""
        ...

    @property
    def fp8_margin(self) -> int:
        """Powers of two kept free above the largest value in that history."""
        ...

    @property
    def fp4_profile(self) -> str:
        """Block layout of the weights under nvfp4 compute."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSupport:
    """One engine's support for a format, and what it requires."""

    engine: str
    note: str
    """Shown by ``surogate-bench recipes``."""
    min_compute_capability: ComputeCapability | None = None
    """Minimum CUDA compute capability; None if the engine runs on any device, CPUs included."""
    package: str | None = None
    """Module that has to be installed in addition to torch."""
    on_request: bool = False
    """Whether a sweep has to name the engine: ``auto`` takes none that has not been run on its hardware yet, or whose
    arithmetic is not exactly the recipe's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageDescriptor:
    """Everything but the numerics of one weight storage."""

    short: str
    description: str
    relative_cost: float
    """Added training time where products are emulated, relative to the cost of the slowest precision."""
    bytes_per_weight: float
    """Codes and scales, of a weight whose dimensions the format's blocks divide."""
    engine: EngineSupport | None = None
    """The only engine that can use the format; None if the engine depends on the compute precision alone."""
    compute: frozenset[ComputePrecision] = frozenset(ComputePrecision)
    """Precisions in which products with such weights can be computed."""
    input_multiple: int = 1
    """The weight's input dimension must be divisible by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeDescriptor:
    """Everything but the numerics of one compute precision."""

    short: str
    description: str
    relative_cost: float
    """Added training time where products are emulated, on the scale of :attr:`StorageDescriptor.relative_cost`."""
    engines: tuple[EngineSupport, ...]
    """Engines from the fastest to the slowest."""
    operand_bytes: float
    """Bytes per weight of the operands that are kept in addition to a weight stored in bf16."""
    packed_operand_bytes: float
    """The same in addition to a quantized weight, where they are kept packed."""
    settings: frozenset[str] = frozenset()
    """Fields of a recipe that have an effect under this precision only."""
    details: Callable[[PrecisionSettings], str] | None = None
    """A sentence about the values of those fields."""
    width_multiple: int = 1
    """Both dimensions of a weight must be divisible by it."""
    scales_inputs: bool = False
    """Whether training ends with a scale for each layer's inputs, which serving needs."""
    is_stochastic: bool = False
    """Whether rounding draws random numbers in training."""
    is_served_emulated: bool = False
    """Whether servers emulate the forward product on every device, whatever engine trains."""


def _by_transformer_engine(note: str, capability: ComputeCapability) -> EngineSupport:
    return EngineSupport(
        engine=TRANSFORMER_ENGINE,
        note=f"{note}; not yet run on hardware",
        min_compute_capability=capability,
        package="transformer_engine",
        on_request=True,
    )


def _fp8_details(settings: PrecisionSettings) -> str:
    margin = f", margin {settings.fp8_margin}." if settings.fp8_margin else "."
    return f"Scales come from the largest magnitude of the last {settings.fp8_amax_history_length:,} steps{margin}"


def _nvfp4_details(settings: PrecisionSettings) -> str:
    if settings.fp4_profile == "paper":
        return "Weights in 16×16 blocks shared by both passes (profile “paper”)."
    return "Weights in 1×16 blocks, requantized for the backward pass (profile “surogate”)."


STORAGES: Mapping[WeightStorage, StorageDescriptor] = {
    WeightStorage.BF16: StorageDescriptor(
        short="bf16", description="bf16, 2 bytes per weight", relative_cost=0.0, bytes_per_weight=2.0
    ),
    WeightStorage.FP8_128X128: StorageDescriptor(
        short="FP8",
        description="FP8 E4M3 with one fp32 scale per 128×128 tile, 1 byte per weight",
        relative_cost=0.1,
        bytes_per_weight=1 + 4 / 128**2,
    ),
    WeightStorage.NVFP4: StorageDescriptor(
        short="NVFP4",
        description="NVFP4: E2M1 with one E4M3 scale per 16 weights and one fp32 scale per tensor, 0.56 bytes per "
        "weight",
        relative_cost=0.2,
        bytes_per_weight=0.5 + 1 / 16,
        input_multiple=16,
    ),
    WeightStorage.NF4: StorageDescriptor(
        short="NF4",
        description="NF4 in blocks of 64 with double quantization (bitsandbytes), 0.52 bytes per weight",
        relative_cost=0.2,
        bytes_per_weight=0.5 + 1 / 64 + 4 / (64 * 256),
        engine=EngineSupport(engine=BITSANDBYTES, note="products in bf16", package="bitsandbytes"),
        compute=frozenset({ComputePrecision.BF16}),
    ),
}

COMPUTES: Mapping[ComputePrecision, ComputeDescriptor] = {
    ComputePrecision.BF16: ComputeDescriptor(
        short="bf16",
        description="bf16 operands in both passes",
        relative_cost=0.0,
        engines=(EngineSupport(engine=TORCH, note="products in bf16"),),
        operand_bytes=0.0,
        packed_operand_bytes=0.0,
    ),
    ComputePrecision.FP8_HYBRID: ComputeDescriptor(
        short="FP8",
        description="FP8: E4M3 activations (delayed scaling) and weights forward, E5M2 gradients backward",
        relative_cost=0.5,
        engines=(
            EngineSupport(engine=TORCH, note="products on FP8 tensor cores", min_compute_capability=(8, 9)),
            _by_transformer_engine("gradients are scaled by their history", (8, 9)),
            EngineSupport(engine=EMULATED, note="bit for bit, but slower"),
        ),
        operand_bytes=2.0,
        packed_operand_bytes=1.0,
        settings=frozenset({"fp8_amax_history_length", "fp8_margin"}),
        details=_fp8_details,
        scales_inputs=True,
    ),
    ComputePrecision.NVFP4: ComputeDescriptor(
        short="NVFP4",
        description="NVFP4: 4-bit operands in blocks of 16, four-over-six scaling forward, stochastic rounding of "
        "gradients",
        relative_cost=1.5,
        engines=(
            EngineSupport(
                engine=TORCH,
                note="products on FP4 tensor cores; not yet run on hardware",
                min_compute_capability=(10, 0),
                on_request=True,
            ),
            _by_transformer_engine("without four-over-six", (10, 0)),
            EngineSupport(
                engine=EMULATED,
                note="bit for bit; on FP4 tensor cores (compute capability 10.0) with engine: torch, which has not yet "
                "been run on hardware",
            ),
        ),
        operand_bytes=2.0,
        packed_operand_bytes=1.0,
        settings=frozenset({"fp4_profile"}),
        details=_nvfp4_details,
        width_multiple=16,
        is_stochastic=True,
        is_served_emulated=True,
    ),
}
