"""Rounding fp32 to the element formats E4M3, E5M2 and E2M1, without branches or tables.

The numbers of a floating-point format with p mantissa bits that share an exponent e are spaced 2**(e-p) apart. Adding
and subtracting 1.5 * 2**(e+23-p) in fp32 therefore rounds to that grid, ties to even, because the sum's own last bit
has exactly that weight; the 1.5 keeps the sum in one binade for either sign. Exponents below the smallest normal one
are raised to it, which yields the format's subnormals. A value that rounds up into the next binade lands on a number
of both grids. All of this is exact for every fp32 value within the format's range.

Sources: OCP 8-bit Floating Point Specification (OFP8) 1.0 for E4M3 and E5M2; OCP Microscaling Formats (MX) 1.0 for
E2M1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_FP32_MANTISSA_BITS = 23
_FP32_EXPONENT_MASK = 0x7F800000


@dataclass(frozen=True, kw_only=True, slots=True)
class ElementFormat:
    """A small floating-point format, by what rounding to it needs."""

    name: str
    mantissa_bits: int
    min_normal: float
    """Smallest normal number; below it the spacing stays constant."""
    max_value: float
    """Largest finite number: what saturation saturates to."""

    @property
    def magic(self) -> float:
        """Factor that makes a power of two the number to add and subtract."""
        return 1.5 * 2.0 ** (_FP32_MANTISSA_BITS - self.mantissa_bits)


E4M3 = ElementFormat(name="e4m3", mantissa_bits=3, min_normal=2.0**-6, max_value=448.0)
E5M2 = ElementFormat(name="e5m2", mantissa_bits=2, min_normal=2.0**-14, max_value=57344.0)
E2M1 = ElementFormat(name="e2m1", mantissa_bits=1, min_normal=1.0, max_value=6.0)


def round_nearest(values: Tensor, element: ElementFormat) -> Tensor:
    """Round to the nearest number of ``element``, ties to even, saturating.

    Equals a saturating cast there and back: infinities become the largest number, NaN stays NaN, and the sign of zero
    is kept.

    Args:
        values: fp32, any shape; not changed.
        element: Format to round to.

    Returns:
        fp32 tensor of the same shape.
    """
    rounded = round_nearest_(values.clone().clamp_(-element.max_value, element.max_value), element)
    return torch.copysign(rounded, values)


def round_nearest_(values: Tensor, element: ElementFormat) -> Tensor:
    """Round fp32 ``values`` in place, for callers that know them to be in range and do not need the sign of zero.

    Args:
        values: fp32, any shape, within the format's largest number (a last-bit excess is harmless).
        element: Format to round to.

    Returns:
        ``values``.
    """
    binade = _binade(values, element)
    return values.add_(binade, alpha=element.magic).sub_(binade, alpha=element.magic)


def round_stochastic_e2m1_(values: Tensor, noise: Tensor) -> Tensor:
    """Round in place to E2M1, up with probability (x - low) / (high - low), saturating at 6.

    Adding centred noise of one grid step's width and then rounding to nearest does it. The noise (k + 1/2) / 2**16 for
    int16 k keeps clear of plus and minus one half, so a number already on the grid never moves, and its mean is zero:
    the probability is right to within 2**-17.

    Args:
        values: fp32, any shape.
        noise: int16 of the same shape, uniform; see :func:`uniform_noise`.

    Returns:
        ``values``; zeros lose their sign.
    """
    binade = _binade(values, E2M1)
    # The grid step is half of the binade's power of two.
    values.addcmul_(binade, noise.to(torch.float32).add_(0.5), value=0.5 * 2.0**-16)
    values.add_(binade, alpha=E2M1.magic).sub_(binade, alpha=E2M1.magic)
    return values.clamp_(-E2M1.max_value, E2M1.max_value)


def uniform_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw uniform int16 noise; a third of the cost of ``torch.rand`` on a CPU.

    Args:
        like: Tensor whose shape and device the noise takes.
        generator: Source of randomness, on the same device.

    Returns:
        int16 tensor.
    """
    drawn = torch.empty((like.numel() + 3) // 4, dtype=torch.int64, device=like.device)
    drawn.random_(-(2**63), None, generator=generator)
    return drawn.view(torch.int16)[: like.numel()].view(like.shape)


def _binade(values: Tensor, element: ElementFormat) -> Tensor:
    """Power of two of each value's binade, at least the format's smallest normal number; ``values`` is only read."""
    exponent = values.view(torch.int32).bitwise_and(_FP32_EXPONENT_MASK)
    return exponent.view(torch.float32).clamp_min_(element.min_normal)
