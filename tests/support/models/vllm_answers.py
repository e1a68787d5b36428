"""What real vLLM generates from a checkpoint, without and with an adapter, and how far that is from transformers."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

CHILD = Path(__file__).parent / "vllm_child.py"
TIE = 2**-5
"""Relative difference of two logits that bf16 sums in another order may exchange: four last bits."""


@dataclass
class Served:
    """What vLLM made of a checkpoint."""

    answers: dict[str, list[tuple[list[int], list[int]]]]
    weights: dict[str, Tensor]


def serve(models: Mapping[str, tuple[Path, Path]], place: Path) -> dict[str, Served]:
    """Serve checkpoints, each with its adapter, in one process; returns what vLLM made of each, by its name."""
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    arguments = [path for name, (model, adapter) in models.items() for path in (model, adapter, place / name)]
    subprocess.run([sys.executable, CHILD, *arguments], env=environment, check=True)
    return {
        name: Served(
            answers=json.loads((place / name).with_suffix(".json").read_text()),
            weights=load_file((place / name).with_suffix(".safetensors")),
        )
        for name in models
    }


def largest_gap(model: torch.nn.Module, answers: list[tuple[list[int], list[int]]]) -> float:
    """Return how far a generated token's logit is below the largest, relative to that, at most."""
    gaps = []
    for prompt, answer in answers:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        gaps.append(float(((logits.amax(1) - chosen) / logits.abs().amax(1)).max()))
    return max(gaps)
