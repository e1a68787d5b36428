"""An adapter that other software trained: checked against the base model, and written as vLLM serves it."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import safetensors.torch

from surogate_bench.contract import ADAPTER_CONFIG_FILE, ADAPTER_PREFIX, ADAPTER_WEIGHTS_FILE, LORA_A, LORA_B
from surogate_bench.files import sha256_of
from surogate_bench.specs import RecipeSweep
from surogate_bench_trainer.foreign.adapters.base_layers import BaseLayers
from surogate_bench_trainer.foreign.adapters.config_file import AdapterConfig, parse_config
from surogate_bench_trainer.foreign.adapters.matrices import Pair, read_matrices
from surogate_bench_trainer.foreign.adapters.scaling import Scaling, resolve_scaling


class AdapterFacts(TypedDict):
    """Fields that results of imports and of foreign training runs share, except digest and warnings."""

    source_files: dict[str, str]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    use_rslora: bool
    target_modules: tuple[str, ...]
    layers: int
    parameters: int
    peft_version: str | None
    base_model: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedAdapter:
    """Contents of the two files of an adapter."""

    files: Mapping[str, str]
    """Their SHA-256 by name."""
    config: AdapterConfig
    pairs: Mapping[str, Pair]
    scaling: Scaling

    def facts(self) -> AdapterFacts:
        """Return the fields that results of imports and of foreign training runs share, except digest and warnings."""
        return {
            "source_files": dict(self.files),
            "ranks": tuple(sorted(set(self.scaling.ranks.values()))),
            "alphas": tuple(sorted(set(self.scaling.alphas.values()))),
            "use_rslora": self.scaling.use_rslora,
            "target_modules": tuple(sorted({layer.rpartition(".")[2] for layer in self.pairs})),
            "layers": len(self.pairs),
            "parameters": sum(pair.a.numel() + pair.b.numel() for pair in self.pairs.values()),
            "peft_version": self.config.peft_version,
            "base_model": self.config.base_model,
        }

    def warnings(self, sweep: RecipeSweep, names: Collection[str]) -> tuple[str, ...]:
        """Return warnings about unusual properties.

        Args:
            sweep: Names the base model.
            names: Last parts of the base model's names.
        """
        found = []
        stated = self.config.base_model
        if stated is not None and last_part(stated) not in names:
            found.append(
                f"The adapter names {stated} as its base model, and this sweep serves {sweep.model.label}. "
                "Their shapes agree; whether their weights do is not known."
            )
        if not any(self.scaling.scale(layer) and bool(pair.b.any()) for layer, pair in self.pairs.items()):
            found.append("The adapter changes nothing: its B matrices are all zero, or its scale is.")
        return tuple(found)


def check_adapter(folder: Path, base: BaseLayers, *, max_rank: int, field: str) -> CheckedAdapter:
    """Read and check an adapter.

    Args:
        folder: Has the two files, of bounded sizes.
        base: The base model that it must fit.
        max_rank: ``serving.max_lora_rank``.
        field: Setting that names the adapter, for messages.

    Raises:
        ConfigError: vLLM does not serve it with the sweep's model.
    """
    config = parse_config((folder / ADAPTER_CONFIG_FILE).read_bytes(), field=field)
    pairs = read_matrices(folder / ADAPTER_WEIGHTS_FILE, base, max_rank=max_rank, field=field)
    return CheckedAdapter(
        files={name: sha256_of(folder / name) for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE)},
        config=config,
        pairs=pairs,
        scaling=resolve_scaling(config, pairs, field=field),
    )


def write_adapter(folder: Path, adapter: CheckedAdapter, base: BaseLayers, *, base_model: str) -> str:
    """Write an adapter as PEFT and vLLM load it; returns the SHA-256 over both files, the configuration first."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "bias": "none",
        "target_modules": base.selection(adapter.pairs),
        **adapter.scaling.as_settings(),
    }
    contents = {
        ADAPTER_CONFIG_FILE: (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        ADAPTER_WEIGHTS_FILE: safetensors.torch.save(
            {f"{ADAPTER_PREFIX}{layer}{LORA_A}": pair.a for layer, pair in adapter.pairs.items()}
            | {f"{ADAPTER_PREFIX}{layer}{LORA_B}": pair.b for layer, pair in adapter.pairs.items()},
            metadata={"format": "pt"},
        ),
    }
    digest = hashlib.sha256()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        digest.update(data)
    return digest.hexdigest()


def last_part(name: str) -> str:
    """Return the last part of a model's name or path, to be compared."""
    return name.rstrip("/").rpartition("/")[2].casefold()
