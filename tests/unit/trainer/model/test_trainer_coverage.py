"""Which share of a model's block weights a recipe covers, and what may not be left in bf16 without a word."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel, Qwen3ForCausalLM

from surogate_bench.errors import ConfigError
from surogate_bench.recipes import RECIPES, Recipe
from surogate_bench.results import TrainResult
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench_quantization.engines import select_engine
from surogate_bench_trainer.model.coverage import uncovered_matrices
from surogate_bench_trainer.model.loading import check_loaded
from surogate_bench_trainer.model.recipe import AppliedRecipe, apply_recipe
from surogate_bench_trainer.training.setup import load_base

CPU = torch.device("cpu")
QUANTIZING = [recipe for recipe in RECIPES if recipe.quantizes]


def apply(model: PreTrainedModel, recipe: Recipe, **changes: Any) -> AppliedRecipe:
    recipe = replace(recipe, **changes)
    return apply_recipe(model, recipe, engine=select_engine(recipe, CPU, "auto"), seed=0)


def mixture_of_experts(kind: str = "qwen3_moe") -> PreTrainedModel:
    config = CONFIG_MAPPING[kind](
        vocab_size=320, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, num_experts=4, num_local_experts=4,
        num_experts_per_tok=2, pad_token_id=1, eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    return model


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_covers_all_matrices_of_a_dense_model(
    make_model: Callable[..., Qwen3ForCausalLM], recipe: Recipe
) -> None:
    model = make_model(num_hidden_layers=4).to(torch.bfloat16)
    applied = apply(model, recipe, skip_first_layers=0, skip_last_layers=0)
    assert applied.covered_share == 1.0


@pytest.mark.parametrize("recipe", QUANTIZING, ids=lambda recipe: recipe.name)
def test_blocks_that_a_recipe_skips_are_not_covered(
    make_model: Callable[..., Qwen3ForCausalLM], recipe: Recipe
) -> None:
    model = make_model(num_hidden_layers=4).to(torch.bfloat16)
    assert apply(model, recipe, skip_first_layers=0, skip_last_layers=1).covered_share == 0.75


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral", "gpt_oss"])
@pytest.mark.parametrize("recipe", QUANTIZING, ids=lambda recipe: recipe.name)
def test_experts_are_not_left_in_bf16_by_a_recipe_that_quantizes(kind: str, recipe: Recipe) -> None:
    model = mixture_of_experts(kind)
    with pytest.raises(
        ConfigError, match=rf"recipe {recipe.name}: model: would leave \d+ weights .* in bf16"
    ) as caught:
        apply(model, recipe, skip_last_layers=0)
    assert "experts" in str(caught.value) or "router" in str(caught.value) or "gate" in str(caught.value)
    left = uncovered_matrices(model)
    assert any(".experts." in name for name in left)
    assert {name.partition(".")[0] for name in left} == {"0", "1"}


def test_experts_stay_as_they_are_without_quantization() -> None:
    bf16 = next(recipe for recipe in RECIPES if not recipe.quantizes)
    assert apply(mixture_of_experts(), bf16).covered_share == 1.0


def test_results_without_a_covered_share_are_read() -> None:
    written = {
        "steps": 1, "tokens": 1, "train_seconds": 1.0, "tokens_per_second": 1.0, "side_by_side": 1, "threads": 1,
        "peak_memory_bytes": 1, "weight_bytes": 1, "operand_cache_bytes": 0, "final_train_loss": 1.0, "validation": [],
        "adapter_sha256": "a", "resumed_from_step": 0,
    }  # fmt: skip
    assert TrainResult.model_validate(written).covered_share is None


@pytest.mark.parametrize("broken", ["lacks a tensor", "holds a NaN"])
def test_a_checkpoint_that_changed_after_it_was_prepared_is_refused_when_loaded(
    model_folder: Path, tmp_path: Path, broken: str
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    if broken == "lacks a tensor":
        del tensors["model.layers.1.mlp.up_proj.weight"]
    else:
        tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"model.layers.1.mlp.up_proj.weight"):
        load_base(ModelLocation(str(folder)), CPU)


def test_soft_capping_and_sinks_are_refused_on_a_gpu_when_the_model_is_loaded() -> None:
    whole: dict[str, set[str]] = {"missing_keys": set(), "mismatched_keys": set(), "unexpected_keys": set()}
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    gemma = AutoModelForCausalLM.from_config(CONFIG_MAPPING["gemma2"](vocab_size=320, intermediate_size=32, **shape))
    gpt_oss = mixture_of_experts("gpt_oss")
    for model, feature in ((gemma, "soft-capping"), (gpt_oss, "sinks")):
        torch.nn.Module.float(model)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        check_loaded(model, whole, CPU)
        with pytest.raises(ConfigError, match=f"packed attention with {feature} is supported on a CPU only"):
            check_loaded(model, whole, torch.device("cuda"))
