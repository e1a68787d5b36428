"""Sizes of the checks: large enough for a GPU, or small enough for a dry run on a CPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from surogate_bench.errors import PermanentError
from surogate_bench.inputs.task_files import builtin_tasks
from surogate_bench.recipes import RECIPES
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.specs.yaml_io import parse_sweep

Shape = Mapping[str, str | int | bool]
"""Fields of a configuration of transformers."""

QWEN3_0_6B: Shape = MappingProxyType(
    {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "max_position_embeddings": 40960,
    }
)
SMALL: Shape = MappingProxyType(
    {
        **QWEN3_0_6B,
        "hidden_size": 256,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 1024,
        "max_position_embeddings": 1024,
    }
)
"""Widths that are multiples of 128, so that every storage format holds its weights."""


_PRODUCTS = (96, 64, 160)
_LENGTHS = ((400, 80, 20), (380, 100, 20), (350, 99, 50), (90, 80), (88, 70), (400, 100, 3), (85, 60))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Device and sizes of a run."""

    device: torch.device
    full: bool
    """Whether the sizes are those of a GPU."""
    folder: Path
    """Folder of the report; working files are below it."""
    shape: Shape
    """Model that is timed."""
    samples: int
    """Samples that timed steps draw from."""
    steps: int
    """Optimizer steps of each timed run."""
    uncounted_steps: int
    """First steps, in which kernels are compiled and graphs captured."""
    products: tuple[tuple[int, int, int], ...]
    """Rows, inputs and outputs of checked products; GEMMs of bf16 are checked at the first size only."""
    lengths: tuple[tuple[int, ...], ...]
    """Tokens of the samples of each checked pass: streams of two sizes of graphs, each of which is replayed."""
    train_steps: int
    """Optimizer steps of the train stage."""
    train_recipes: tuple[str, ...]
    """Recipes of the train stage."""

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"


def setting_for(device: torch.device, folder: Path, *, full: bool = False) -> Setting:
    """Return the sizes for a device; ``full``: those of a GPU on a CPU too."""
    if full or device.type == "cuda":
        return Setting(
            device=device,
            full=True,
            folder=folder,
            shape=QWEN3_0_6B,
            samples=4000,
            steps=10,
            uncounted_steps=5,
            products=(_PRODUCTS, (512, 1024, 768)),
            lengths=_LENGTHS,
            train_steps=20,
            train_recipes=tuple(recipe.name for recipe in RECIPES),
        )
    return Setting(
        device=device,
        full=False,
        folder=folder,
        shape=SMALL,
        samples=100,
        steps=2,
        uncounted_steps=1,
        products=(_PRODUCTS,),
        lengths=tuple(tuple(max(3, length // 4) for length in lengths) for lengths in _LENGTHS),
        train_steps=4,
        train_recipes=("fp8",),
    )


def reference_sweep(setting: Setting | None = None) -> RecipeSweep:
    """Return the reference experiment, whose training settings are timed; on a CPU with smaller batches."""
    sweep = load_sweep(_sweeps() / "qwen3-0.6b-ro-gsm8k.yaml")
    if setting is None or setting.full:
        return sweep
    small = {"max_length": 640, "micro_batch_size": 1, "gradient_accumulation_steps": 2}
    return sweep.model_copy(update={"training": sweep.training.model_copy(update=small)})


def embedded_sweep(steps: int) -> RecipeSweep:
    """Return the embedded experiment, shortened to so many steps."""
    document = load_sweep(_sweeps() / "embedded.yaml").model_dump(mode="json", exclude_none=True)
    document["name"] = "gpu-check"
    document["data"] |= {"train_size": 200, "validation_size": 10, "test_size": 10}
    document["training"] |= {"max_steps": steps, "eval_steps": steps, "checkpoint_steps": max(1, steps // 2)}
    document["training"] |= {"warmup_steps": 2, "learning_rate": 1e-3}
    return parse_sweep(document)


def _sweeps() -> Path:
    tasks = builtin_tasks()
    if tasks is None:
        raise PermanentError("the shipped configuration (configs/) is not installed here")
    return tasks.parent / "sweeps"
