"""Scales of FP8 inputs for models without stored ones: the base model, and adapters trained under another recipe.

The adapter is loaded under a second name, which makes the plug-in measure its inputs. Prompts are requested one after
another, so that each is computed alone; then the adapter is loaded under its own name, and gets the scales.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from safetensors import safe_open

from surogate_bench.contract import DATA_FOLDER, INPUT_SCALES_FILE, split_file
from surogate_bench.control_api import ScaleSource
from surogate_bench.layout import SweepLayout
from surogate_bench.specs.data import DataSpec
from surogate_bench.stages.prepared import prompt_and_completion, special_tokens
from surogate_bench.stages.publication import fetch_stage
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_model_server.adapters.delivery import LocalAdapter
from surogate_bench_model_server.served_recipe.settings import CALIBRATED, CALIBRATING
from surogate_bench_model_server.vllm.client import VllmClient

CALIBRATION_PROMPTS = 64
"""Training records that inputs are measured on, the first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationPrompts:
    """Texts on which inputs are measured."""

    texts: tuple[str, ...]
    special_tokens: bool
    """Whether the tokenizer adds its special tokens, as it did in training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputCalibration:
    """Gives adapters the input scales that they lack. TransientError of the client passes through."""

    runs: frozenset[str]
    """Runs trained under the recipe that is served: the scales stored by their training are used, if there are any."""
    prompts: Callable[[], CalibrationPrompts]
    """Read where they are needed."""

    async def measure(self, adapter: LocalAdapter, client: VllmClient) -> None:
        """Measure an adapter's inputs unless it has scales; the next load under its own name keeps them."""
        if (adapter.folder / INPUT_SCALES_FILE).exists():
            return
        name = f"{adapter.name}{CALIBRATING}"
        prompts = self.prompts()
        await client.load_adapter(name, adapter.folder.resolve())
        for text in prompts.texts:
            await client.prefill(name, text, special_tokens=prompts.special_tokens)
        await client.unload_adapter(name)


def scale_source(adapter: LocalAdapter) -> ScaleSource | None:
    """Return where an adapter's input scales come from; None if it has none."""
    path = adapter.folder / INPUT_SCALES_FILE
    if not path.exists():
        return None
    with safe_open(path, "np") as file:
        return "calibration" if CALIBRATED in (file.metadata() or {}) else "training"


def read_prompts(store: ObjectStore, layout: SweepLayout, data: DataSpec, *, scratch: Path) -> CalibrationPrompts:
    """Read the first training records as they are trained on: prompt and completion.

    Raises:
        PermanentError: the prepare stage is missing or damaged.
        TransientError: the store is unavailable.
    """
    name = f"{DATA_FOLDER}/{split_file('train')}"
    fetch_stage(store, layout.prepare, scratch, under=name)
    with (scratch / name).open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in islice(lines, CALIBRATION_PROMPTS)]
    rendered = "text" in records[0]  # as a whole, possibly by a chat template, which writes special tokens itself
    return CalibrationPrompts(
        texts=tuple(record["text"] if rendered else "".join(prompt_and_completion(record, data)) for record in records),
        special_tokens=records[0]["special_tokens"] if rendered else special_tokens(store, layout) is not None,
    )
