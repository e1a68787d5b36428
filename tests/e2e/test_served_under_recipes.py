"""A real vLLM under each recipe against transformers, PEFT and the trainer's layers, on greedy answers.

``SERVED_ANSWERS=200`` asks for the whole comparison: every recipe, and so many answers of each (about 10 minutes).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from models.served_answers import (
    Answer,
    Reference,
    distance,
    gaps,
    greedy_answers,
    quantized_by_bitsandbytes,
    questions_of,
    require_ties_only,
    serving,
    trained_store,
)
from ports import free_port
from safetensors.torch import load_file
from sweeps import small_sweep
from torch import Tensor
from transformers import AutoModelForCausalLM
from waiting import PATIENCE_S

from surogate_bench.contract import INPUT_SCALES_FILE
from surogate_bench.recipes import RECIPES, ComputePrecision, Recipe, recipe_by_name
from surogate_bench.stages.model_source import local_model_folder
from surogate_bench.stages.requests import ServeRequest
from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products
from surogate_bench_quantization.engines import select_engine
from surogate_bench_quantization.linear import QuantizedLinear
from surogate_bench_trainer.model.recipe import apply_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")]

ANSWERS = int(os.environ.get("SERVED_ANSWERS", "16"))
ALWAYS = ("qbnb", "fp4")
"""Weights quantized by others' code, and products of our own."""
NAMES = [recipe.name for recipe in RECIPES] if ANSWERS >= 200 else [*ALWAYS, "qfp4"]
SWEEP = small_sweep(
    name="under",
    data={"train_size": 128, "test_size": ANSWERS, "validation_size": 4},
    training={"max_steps": 12, "max_length": 512, "learning_rate": 1e-3, "lora": {"r": 16, "alpha": 32}},
    recipes=["fp8"],
    serving={"max_lora_rank": 16, "max_loras": 2, "max_model_len": 512, "kv_cache_gib": 0.25,
             "start_timeout_s": PATIENCE_S},
)  # fmt: skip
RUN = "fp8-s0"
BASE = str(local_model_folder(SWEEP.model))
TIE_OF_NOISE = 16.0
"""The same where inputs are quantized, which amplifies a rounding: so many times the reference's own noise."""


@dataclass(frozen=True)
class Served:
    """Answers of a server, and what it reported."""

    answers: list[Answer]
    loaded: dict[str, Any]
    status: dict[str, Any]
    adapter: Path


def exhaustive(name: str) -> tuple[pytest.MarkDecorator, ...]:
    return () if name in ALWAYS else (pytest.mark.exhaustive,)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one adapter, trained under FP8."""
    return trained_store(tmp_path_factory.mktemp("under"), SWEEP, "fp8")


def served(store: str, under: str, work: Path) -> Served:
    """Ask for every answer, many at the same time."""
    request = ServeRequest(sweep=SWEEP, store=store, threads=2, port=free_port(), vllm_port=free_port(), under=under)
    with serving(request, work) as call:
        body = {"prefix": request.layout.train(RUN)}
        loaded = call("PUT", request.port, f"/adapters/{RUN}", json=body).raise_for_status().json()
        assert call("POST", request.port, "/probe").is_success

        answers = greedy_answers(call, request, loaded["model"], questions_of(request))
        status = call("GET", request.port, "/status").json()
    adapter = next(work.glob(f"adapters*/{loaded['model']}"))
    return Served(answers, loaded, status, adapter)


def with_the_trainers_layers(recipe: Recipe, adapter: Path) -> Reference:
    """Return the reference whose linear layers are those that the trainer puts in place."""
    ensure_fast_bf16_products()
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.bfloat16)
    applied = apply_recipe(base, recipe, engine=select_engine(recipe, torch.device("cpu")), seed=0)
    if applied.input_scales():
        scales = load_file(adapter / INPUT_SCALES_FILE)
        state = applied.state_dict()
        state["delayed_scaling.scale"] = torch.stack([scales[name] for name in applied.replaced])
        applied.load_state_dict(state)
    if recipe.compute is ComputePrecision.NVFP4:
        for module in base.modules():
            if isinstance(module, QuantizedLinear):
                module.products.fprop = by_token(module.products.fprop)
    return Reference(base, adapter)


def by_token(fprop: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Multiply every token by itself, as a server does whose batches are not those of training."""

    def multiply(inputs: Tensor, *, record: bool) -> Tensor:
        return torch.cat([fprop(row, record=record) for row in inputs.flatten(end_dim=-2).split(1)])

    return multiply


@pytest.mark.parametrize("name", [pytest.param(name, marks=exhaustive(name)) for name in NAMES])
def test_greedy_answers_are_those_of_transformers_with_the_trainers_layers_up_to_ties(
    name: str, store: str, tmp_path: Path
) -> None:
    recipe = recipe_by_name(name)
    given = served(store, name, tmp_path)
    scaled = recipe.compute is ComputePrecision.FP8_HYBRID
    source = ("training" if name == "fp8" else "calibration") if scaled else None
    assert given.status["under"] == (name if recipe.quantizes else None)
    assert given.loaded.get("input_scales") == source
    assert given.status["input_scales"] == ({"base": "calibration", RUN: source} if scaled else {})

    reference = with_the_trainers_layers(recipe, given.adapter)
    if recipe.quantizes:
        few, published = given.answers[: len(given.answers) // 4], recipe_by_name("bf16")
        as_published = distance(with_the_trainers_layers(published, given.adapter), few)
        assert distance(reference, few) < 0.5 * as_published, "these are not the weights and products of the recipe"
    if recipe.compute is ComputePrecision.BF16:
        require_ties_only(reference, given.answers)
        if name == "qbnb":
            require_ties_only(Reference(quantized_by_bitsandbytes(BASE), given.adapter), given.answers)
        return

    tokens = ties = own_ties = 0
    largest, noise = 0.0, []
    by_rows = recipe.compute is ComputePrecision.NVFP4  # which takes seconds an answer
    for prompt, answer, _ in given.answers[: len(given.answers) // (4 if by_rows else 1)]:
        logits, other = reference.logits(prompt, answer), reference.logits(prompt, answer, "eager")
        below = gaps(logits, answer)
        tokens, ties = tokens + len(answer), ties + int((below > 0).sum())
        largest = max(largest, float(below.max()))
        noise.append(float((logits - other).abs().mean()))
        own_ties += int((gaps(logits, other.argmax(dim=1).tolist()) > 0).sum())
    print(f"{name}: {ties} ties of {tokens} tokens, the largest {largest:.3f}; the reference's own: {own_ties}")  # noqa: T201
    assert ties <= 1.5 * own_ties + 0.01 * tokens + 3.0 * (own_ties + 1) ** 0.5  # few tokens, few ties
    assert largest <= TIE_OF_NOISE * sum(noise) / len(noise)
