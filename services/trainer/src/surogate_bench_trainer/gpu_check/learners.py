"""Learners on random models and samples, made by the trainer's own code."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from surogate_bench.recipes import Recipe
from surogate_bench.specs import RecipeSweep
from surogate_bench_trainer.data.batches import PackedBatch, collate
from surogate_bench_trainer.data.encoding import Sample
from surogate_bench_trainer.gpu_check.settings import Shape
from surogate_bench_trainer.model.attention.packed import IMPLEMENTATION
from surogate_bench_trainer.model.lean_layers import make_lean
from surogate_bench_trainer.model.lora import lora_layers
from surogate_bench_trainer.training.learner import Learner
from surogate_bench_trainer.training.setup import build_learner


def random_model(shape: Shape, device: torch.device, **options: str) -> nn.Module:
    """Make a bf16 model of a shape, the same on every call; options are those of transformers' ``from_config``."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(0)
        model: nn.Module = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**shape), dtype=torch.bfloat16, **options
        )
    return model


def random_learner(
    shape: Shape, sweep: RecipeSweep, recipe: Recipe, device: torch.device, *, seed: int = 0, capture: bool = True
) -> Learner:
    """Make a learner on a random model, as the train stage does on a loaded one."""
    base = random_model(shape, device, attn_implementation=IMPLEMENTATION)
    make_lean(base)
    return build_learner(base, sweep, recipe, seed=seed, steps=1000, capture=capture)


def randomize_lora_b(learner: Learner) -> None:
    """Fill B, which starts as zeros, with numbers, so that all gradients count from the first step on."""
    generator = torch.Generator().manual_seed(2)
    for layer in lora_layers(learner.model):
        b = next(iter(layer.lora_B.values())).weight
        b.data.copy_(torch.empty(b.shape).normal_(std=0.05, generator=generator))


def gradients(learner: Learner) -> Tensor:
    """Copy the gradients of all adapters: fp32, 1-dim."""
    parameters = [each for each in learner.model.parameters() if each.requires_grad]
    return torch.cat([each.grad.flatten() for each in parameters if each.grad is not None])


def distance(first: Tensor, second: Tensor) -> float:
    """Return 1 minus the cosine of the angle between two vectors, in float64."""
    return 1.0 - float(torch.cosine_similarity(first.double(), second.double(), dim=0))


def random_batch(lengths: Sequence[int], shape: Shape, device: torch.device) -> PackedBatch:
    """Make a batch of samples of random tokens, the same for the same lengths."""
    generator = np.random.default_rng(sum(lengths))
    samples = [Sample(generator.integers(2, int(shape["vocab_size"]), size).tolist(), size // 3) for size in lengths]
    return collate(samples, "completion", device)


def random_samples(vocabulary: int, count: int = 4000) -> list[Sample]:
    """Draw samples whose lengths are spread as those of GSM8K under Qwen's tokenizer (90 to 600 tokens).

    Token 0 is left out: it is the padding of the plain loop.
    """
    generator = np.random.default_rng(0)
    lengths = generator.lognormal(mean=5.2, sigma=0.35, size=count).clip(90, 600).astype(int)
    return [
        Sample(tokens=generator.integers(1, vocabulary, length).tolist(), prompt_length=int(length) // 2)
        for length in lengths
    ]
