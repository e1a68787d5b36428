"""Recipes on a model with widths that their blocks do not divide: refused, kept in bf16, or padded with zeros."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import Qwen3ForCausalLM

from surogate_bench.errors import ConfigError
from surogate_bench.recipes import Recipe, recipe_by_name
from surogate_bench_quantization.engines import select_engine
from surogate_bench_quantization.linear import QuantizedLinear
from surogate_bench_trainer.model.recipe import AppliedRecipe, apply_recipe

MakeModel = Callable[..., Qwen3ForCausalLM]
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def apply(model: Qwen3ForCausalLM, recipe: Recipe) -> AppliedRecipe:
    return apply_recipe(model, recipe, engine=select_engine(recipe, model.device), seed=0)


def loss_and_gradients(model: Qwen3ForCausalLM) -> list[Tensor]:
    """Attach the same adapters to attention; the loss, and its gradient by each of their matrices."""
    torch.manual_seed(1)
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules=ATTENTION, init_lora_weights=False, task_type="CAUSAL_LM")
    ).train()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 4 * 3
    tokens = torch.randint(0, 101, (2, 48), generator=torch.Generator().manual_seed(0)).to(model.device)
    with torch.autocast(tokens.device.type, torch.bfloat16):
        loss: Tensor = adapted(input_ids=tokens, labels=tokens, use_cache=False).loss
    return [loss.detach(), *torch.autograd.grad(loss, trained)]


@pytest.mark.parametrize("name", ["fp4", "qfp4"])
def test_widths_that_nvfp4_cannot_divide_are_refused_by_layer_and_shape(name: str, make_model: MakeModel) -> None:
    model = make_model(intermediate_size=40)
    with pytest.raises(ConfigError, match=r"0\.mlp\.\w+ has (64 inputs and 40|40 inputs and 64) outputs.*multiples"):
        apply(model, recipe_by_name(name))
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())


@pytest.mark.parametrize("name", ["fp4", "qfp4"])
def test_layers_that_nvfp4_cannot_divide_stay_in_bf16_where_the_recipe_says_so(
    name: str, make_model: MakeModel
) -> None:
    recipe = replace(recipe_by_name(name), on_indivisible="keep", skip_last_layers=0)
    model = make_model(intermediate_size=40)
    applied = apply(model, recipe)
    kept = ("mlp.down_proj",) if name == "qfp4" else ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert applied.kept == kept
    plain = {path for path, module in model.named_modules() if type(module) is nn.Linear and ".layers." in path}
    assert plain == {f"model.layers.{index}.{layer}" for index in range(3) for layer in kept}
    attention = 2 * 64 * 64 + 2 * 64 * 32
    assert applied.covered_share == pytest.approx(1 - 64 * 40 * len(kept) / (attention + 3 * 64 * 40))
    assert apply(make_model(), recipe).kept == ()


@pytest.mark.parametrize("name", ["fp4", "qfp4"])
def test_a_model_that_is_padded_computes_what_it_computes_with_zeros_in_its_weights(
    name: str, make_model: MakeModel
) -> None:
    """A block with 40 inner features, against one of 48 of which the last 8 are zeros."""
    recipe = replace(recipe_by_name(name), on_indivisible="pad", skip_last_layers=0)
    model, whole = make_model(intermediate_size=40), make_model(intermediate_size=48)
    values = model.state_dict()
    whole.load_state_dict({key: behind_zeros(values[key], like) for key, like in whole.state_dict().items()})
    applied, expected = apply(model, recipe), apply(whole, recipe)
    assert (applied.kept, applied.covered_share) == ((), 1.0)
    needed = ("mlp.down_proj",) if name == "qfp4" else ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert (applied.padded, expected.padded) == (needed, ())
    for ours, theirs in zip(loss_and_gradients(model), loss_and_gradients(whole), strict=True):
        if name == "fp4":  # FP8 products are not padded, and sum 40 numbers in another order than 48
            assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.01 * float(theirs.abs().max()))
        assert theirs.any()


def behind_zeros(values: Tensor, like: Tensor) -> Tensor:
    """Write a parameter into zeros of the shape that it has in a wider model."""
    larger = torch.zeros_like(like)
    larger[tuple(slice(size) for size in values.shape)] = values
    return larger


def test_a_recipe_that_would_keep_every_layer_in_bf16_is_refused(make_model: MakeModel) -> None:
    recipe = replace(recipe_by_name("fp4"), on_indivisible="keep")
    model = make_model(hidden_size=40, intermediate_size=40)
    with pytest.raises(ConfigError, match="every layer of the transformer blocks has such a dimension"):
        apply(model, recipe)
