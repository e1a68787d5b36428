"""Rank and scale of each layer of a foreign adapter, and the equivalent configuration in its simplest form.

PEFT multiplies a layer's update by alpha / rank, or by alpha / sqrt(rank) with rsLoRA (Kalajdzievski, 2023), where
``rank_pattern`` and ``alpha_pattern`` override rank and alpha: their keys are regular expressions, matched against the
end of a layer's name from a dot on, and the first match decides. vLLM 0.32 does the same
(``vllm.lora.peft_helper.PEFTHelper.get_rank_and_scaling``). An expression from an untrusted file may take exponential
time, so they are matched here, with a deadline, and rewritten as plain names.
"""

import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import regex  # transformers needs it; unlike re it has deadlines

from surogate_bench_trainer.foreign.adapters.config_file import AdapterConfig, refused
from surogate_bench_trainer.foreign.adapters.matrices import Pair

_PATIENCE_S, _SHORTEST_S = 5.0, 1e-3
_Value = TypeVar("_Value", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Rank and alpha by full name of the layer."""

    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    use_rslora: bool

    def scale(self, layer: str) -> float:
        """Return what the product of a layer's matrices is multiplied by."""
        rank = self.ranks[layer]
        return self.alphas[layer] / (rank**0.5 if self.use_rslora else rank)

    def as_settings(self) -> dict[str, Any]:
        """Return the fields of PEFT's configuration that give these, with plain names as the only expressions."""
        rank, rank_pattern = _common(self.ranks)
        alpha, alpha_pattern = _common({layer: _plain(alpha) for layer, alpha in self.alphas.items()})
        return {
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": rank_pattern,
            "alpha_pattern": alpha_pattern,
            "use_rslora": self.use_rslora,
        }


def resolve_scaling(config: AdapterConfig, pairs: Mapping[str, Pair], *, field: str) -> Scaling:
    """Find rank and alpha of each layer.

    Raises:
        ConfigError: a pattern is not a regular expression or takes too long, or the configuration gives a layer another
            rank than its matrices have, so that its scale is not known.
    """
    patterns = _Patterns(field=field, deadline=time.monotonic() + _PATIENCE_S)
    ranks = {layer: patterns.find(config.rank_pattern, layer, "rank_pattern") or config.rank for layer in pairs}
    found = {layer: patterns.find(config.alpha_pattern, layer, "alpha_pattern") for layer in pairs}
    alphas = {layer: config.alpha if alpha is None else float(alpha) for layer, alpha in found.items()}
    for layer, pair in pairs.items():
        if ranks[layer] != pair.rank:
            raise refused(
                field,
                "rank_pattern" if config.rank_pattern else "r",
                f"differs from the matrices of {layer}, which have rank {pair.rank}: the scale would be wrong",
                ranks[layer],
                "Use the adapter_config.json that belongs to these weights.",
            )
    return Scaling(ranks=ranks, alphas=alphas, use_rslora=config.use_rslora)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patterns:
    """Matches the expressions of one adapter, all of them within a deadline."""

    field: str
    deadline: float

    def find(self, table: Mapping[str, _Value], layer: str, key: str) -> _Value | None:
        """Return the value of the first expression that matches a layer's name."""
        for expression, value in table.items():
            try:
                left = max(_SHORTEST_S, self.deadline - time.monotonic())
                if regex.match(rf"(.*\.)?({expression})$", layer, timeout=left):
                    return value
            except (regex.error, TimeoutError, RecursionError) as error:
                problem = "has a key that is not a regular expression, or takes too long to match"
                raise refused(self.field, key, problem, expression, "Write the names of the layers.") from error
        return None


def _common(values: Mapping[str, _Value]) -> tuple[_Value, dict[str, _Value]]:
    """Split values into the most common one and, for each other, one key that matches exactly its layers."""
    common = Counter(values.values()).most_common(1)[0][0]
    layers: dict[_Value, list[str]] = {}
    for layer, value in values.items():
        if value != common:
            layers.setdefault(value, []).append(re.escape(layer))
    return common, {"|".join(names): value for value, names in layers.items()}


def _plain(alpha: float) -> float:
    return int(alpha) if alpha == int(alpha) else alpha
