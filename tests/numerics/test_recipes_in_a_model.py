"""Recipes applied to a small random Qwen3 and trained through PEFT."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen3ForCausalLM

from surogate_bench.errors import ConfigError, PermanentError, UnsupportedRecipeError
from surogate_bench.recipes import RECIPES, ComputePrecision, Recipe, WeightStorage, recipe_by_name
from surogate_bench.recipes.engines import ENGINE_NAMES
from surogate_bench.recipes.precisions import STORAGES
from surogate_bench_quantization.engines import select_engine
from surogate_bench_quantization.engines.selection import ENGINES
from surogate_bench_quantization.linear import QuantizedLinear
from surogate_bench_quantization.storage.selection import STORAGE_CLASSES
from surogate_bench_trainer.model.recipe import AppliedRecipe, apply_recipe

MakeModel = Callable[..., Qwen3ForCausalLM]
WithLora = Callable[[Qwen3ForCausalLM], PeftModel]
CPU = torch.device("cpu")
ALL = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
BLOCK_PARAMETERS = 3 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 160)


def apply(model: Qwen3ForCausalLM, recipe: Recipe, *, seed: int = 0) -> AppliedRecipe:
    return apply_recipe(model, recipe, engine=select_engine(recipe, model.device), seed=seed)


def tokens(seed: int = 0) -> Tensor:
    return torch.randint(0, 101, (2, 48), generator=torch.Generator().manual_seed(seed))


def loss_of(model: Qwen3ForCausalLM | PeftModel, seed: int = 0) -> Tensor:
    stream = tokens(seed).to(model.device)
    with torch.autocast(stream.device.type, torch.bfloat16):
        loss: Tensor = model(input_ids=stream, labels=stream, use_cache=False).loss
    return loss


def lora_parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def randomize_lora_b(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    for name, parameter in lora_parameters(model).items():
        if "lora_B" in name:
            parameter.data.copy_(torch.empty(parameter.shape).normal_(std=0.05, generator=generator))


def gradients(model: PeftModel) -> dict[str, Tensor]:
    parameters = lora_parameters(model)
    return dict(zip(parameters, torch.autograd.grad(loss_of(model), list(parameters.values())), strict=True))


@ALL
def test_every_recipe_trains_through_peft_with_finite_gradients_everywhere(
    recipe: Recipe, make_model: MakeModel, with_lora: WithLora
) -> None:
    model = make_model()
    apply(model, recipe)
    adapted = with_lora(model).train()
    randomize_lora_b(adapted)
    found = gradients(adapted)
    assert len(found) == 2 * 7 * 3
    for name, gradient in found.items():
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


@ALL
def test_gradients_point_where_those_of_bf16_point(recipe: Recipe, make_model: MakeModel, with_lora: WithLora) -> None:
    directions = []
    for each in (recipe_by_name("bf16"), recipe):
        model = make_model()
        apply(model, each)
        adapted = with_lora(model).train()
        randomize_lora_b(adapted)
        directions.append(torch.cat([gradient.flatten() for gradient in gradients(adapted).values()]))
    coarse = recipe.compute is ComputePrecision.NVFP4 or recipe.weight_storage is not WeightStorage.BF16
    similarity = torch.cosine_similarity(directions[0], directions[1], dim=0)
    assert similarity > (0.9 if coarse else 0.97)
    assert (similarity > 0.99999) == (not recipe.quantizes)


def test_lora_starts_from_the_same_numbers_under_every_recipe(make_model: MakeModel, with_lora: WithLora) -> None:
    starts = []
    for recipe in RECIPES:
        model = make_model()
        apply(model, recipe)
        starts.append(lora_parameters(with_lora(model)))
    first = starts[0]
    assert {parameter.dtype for parameter in first.values()} == {torch.float32}
    for other in starts[1:]:
        assert first.keys() == other.keys()
        assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("name", "bytes_expected"),
    [
        ("bf16", 2 * BLOCK_PARAMETERS),
        ("fp8", 2 * BLOCK_PARAMETERS),
        ("fp4", 2 * BLOCK_PARAMETERS),
        ("qfp8-bf16", BLOCK_PARAMETERS + 4 * 3 * (4 + 2 + 2 + 2)),  # one tile each, two for 160
        ("qfp8-fp8-hybrid", BLOCK_PARAMETERS + 4 * 3 * (4 + 2 + 2 + 2)),
        ("qfp4", BLOCK_PARAMETERS * 9 // 16 + 4 * 3 * 7),
        # packed, 8-bit scales, one fp32 scale for up to 256 of them, an offset, tables of 16 and 256 numbers
        ("qbnb", BLOCK_PARAMETERS // 2 + BLOCK_PARAMETERS // 64 + 3 * 7 * (4 + 4 + 64 + 1024)),
    ],
)
def test_weight_bytes_are_exact(name: str, bytes_expected: int, make_model: MakeModel) -> None:
    assert apply(make_model(), recipe_by_name(name)).weight_bytes == bytes_expected


def floating_tensors(size: int) -> list[Tensor]:
    """Every floating-point tensor of so many elements that is alive, whoever holds it."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if issubclass(type(found), Tensor)]
    return [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel() == size]


@pytest.mark.parametrize("name", ["qbnb", "qfp8-fp8-hybrid", "qfp8-bf16", "qfp4"])
def test_no_floating_point_copy_of_a_quantized_weight_survives(
    name: str, make_model: MakeModel, with_lora: WithLora
) -> None:
    size = 64 * 208  # no other tensor here has so many elements
    assert not floating_tensors(size)
    model = make_model(intermediate_size=208)
    assert len(floating_tensors(size)) == 3 * 3  # gate, up and down of three blocks
    apply(model, recipe_by_name(name))
    adapted = with_lora(model).train()
    torch.autograd.backward(loss_of(adapted))
    assert not floating_tensors(size)


@pytest.mark.parametrize(("name", "per_parameter"), [("fp8", 2), ("fp4", 2), ("qfp8-fp8-hybrid", 1), ("qfp4", 1)])
def test_operand_caches_are_counted_beside_the_weights(name: str, per_parameter: int, make_model: MakeModel) -> None:
    applied = apply(make_model(), recipe_by_name(name))
    assert applied.operand_cache_bytes == BLOCK_PARAMETERS * per_parameter + 3 * 7 * 4


def bytes_alive() -> int:
    """Bytes of all storages of tensors that are alive, whoever holds them."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if issubclass(type(found), Tensor) and not found.is_meta]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}.values())


@ALL
def test_what_a_recipe_holds_while_training_is_its_weights_and_cached_operands(
    recipe: Recipe, make_model: MakeModel, with_lora: WithLora
) -> None:
    before = bytes_alive()
    model = make_model()
    others = bytes_alive() - before - 2 * BLOCK_PARAMETERS  # embeddings, norms, rotary frequencies
    applied = apply(model, recipe)
    adapted = with_lora(model).train()
    torch.autograd.backward(loss_of(adapted))
    applied.end_of_optimizer_step()
    adapted.zero_grad(set_to_none=True)
    state = sum(tensor.nbytes for tensor in applied.state_dict().values())  # histories and scales, or a generator's
    lora = sum(parameter.nbytes for parameter in lora_parameters(adapted).values())
    held = bytes_alive() - before - others - lora
    expected = applied.weight_bytes + applied.operand_cache_bytes
    assert expected <= held <= expected + state + 4096  # and look-up tables


@pytest.mark.parametrize("name", ["bf16", "qbnb", "qfp8-bf16"])
def test_bf16_products_keep_nothing_beside_the_weights(name: str, make_model: MakeModel) -> None:
    assert apply(make_model(), recipe_by_name(name)).operand_cache_bytes == 0


@ALL
def test_embeddings_norms_and_head_are_untouched(recipe: Recipe, make_model: MakeModel) -> None:
    reference, model = make_model(), make_model()
    apply(model, recipe)
    assert type(model.lm_head) is nn.Linear
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name, parameter in reference.named_parameters():
        if "norm" in name or "embed" in name:
            assert torch.equal(parameter, model.get_parameter(name))


def test_skipped_blocks_stay_plain_linear_layers(make_model: MakeModel) -> None:
    model = make_model(num_hidden_layers=4)
    recipe = replace(recipe_by_name("qfp4"), skip_first_layers=1, skip_last_layers=2)
    applied = apply(model, recipe)
    quantized = [
        {type(module) for module in block.modules() if isinstance(module, nn.Linear)} for block in model.model.layers
    ]
    assert quantized == [{nn.Linear}, {QuantizedLinear}, {nn.Linear}, {nn.Linear}]
    per_block = BLOCK_PARAMETERS // 3
    assert applied.weight_bytes == 3 * 2 * per_block + per_block * 9 // 16 + 4 * 7


def test_skipping_every_block_is_refused(make_model: MakeModel) -> None:
    recipe = replace(recipe_by_name("fp8"), skip_first_layers=1, skip_last_layers=2)
    with pytest.raises(ConfigError, match="none of the model's 3 transformer blocks"):
        apply(make_model(), recipe)


def test_a_model_that_is_not_bf16_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(PermanentError, match="float32"):
        apply(make_model().float(), recipe_by_name("fp8"))


def test_a_model_without_transformer_blocks_is_refused(make_model: MakeModel) -> None:
    model = make_model()
    model.config.num_hidden_layers = 7
    with pytest.raises(PermanentError, match="7 transformer blocks"):
        apply(model, recipe_by_name("fp8"))


@ALL
def test_auto_runs_every_recipe_on_this_machine_and_names_its_engine(
    recipe: Recipe, make_model: MakeModel, device: torch.device
) -> None:
    engines = {
        ComputePrecision.BF16: "torch",
        ComputePrecision.FP8_HYBRID: "emulated",
        ComputePrecision.NVFP4: "emulated",
    }
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):
        engines[ComputePrecision.FP8_HYBRID] = "torch"
    nf4 = recipe.weight_storage is WeightStorage.NF4
    assert apply(make_model(), recipe).engine_name == ("bitsandbytes" if nf4 else engines[recipe.compute])


def test_an_engine_that_cannot_run_a_recipe_is_never_replaced_silently() -> None:
    with pytest.raises(UnsupportedRecipeError, match=r"fp8 cannot .*torch: its fp8-hybrid products need a GPU"):
        select_engine(recipe_by_name("fp8"), CPU, "torch")
    with pytest.raises(UnsupportedRecipeError, match=r"fp4 cannot .*torch: its nvfp4 products need a GPU of .* 10\.0"):
        select_engine(recipe_by_name("fp4"), CPU, "torch")
    with pytest.raises(UnsupportedRecipeError, match="transformer-engine: its nvfp4 products need a GPU"):
        select_engine(recipe_by_name("fp4"), CPU, "transformer-engine")
    with pytest.raises(UnsupportedRecipeError, match="tensorflow: no such engine in this version"):
        select_engine(recipe_by_name("fp4"), CPU, "tensorflow")
    assert select_engine(recipe_by_name("fp8"), CPU, "emulated").name == "emulated"
    assert select_engine(recipe_by_name("qbnb"), CPU, "emulated").name == "bitsandbytes"


def test_an_engine_never_computes_in_another_precision() -> None:
    with pytest.raises(NotImplementedError):
        ENGINES["emulated"].start(recipe_by_name("bf16"), layers=1, device=CPU, seed=0)


def test_the_implemented_engines_are_those_that_the_descriptors_name() -> None:
    assert set(ENGINES) == set(ENGINE_NAMES)
    assert {storage for storage in WeightStorage if STORAGES[storage].engine is None} == set(STORAGE_CLASSES)


def test_a_gpu_that_is_too_old_is_named_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A100")
    message = r"fp8 cannot run on A100, which has compute capability 8\.0 \(torch: .* 8\.9 or later\)"
    with pytest.raises(UnsupportedRecipeError, match=message):
        select_engine(recipe_by_name("fp8"), torch.device("cuda"), "torch")


@ALL
def test_validation_changes_nothing(recipe: Recipe, make_model: MakeModel, with_lora: WithLora) -> None:
    results = []
    for validate in (False, True):
        model = make_model()
        applied = apply(model, recipe)
        adapted = with_lora(model)
        randomize_lora_b(adapted)
        if validate:
            adapted.eval()
            with torch.no_grad():
                loss_of(adapted, seed=9)
        adapted.train()
        found = gradients(adapted)
        applied.end_of_optimizer_step()
        results.append(found | applied.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def train(model: PeftModel, applied: AppliedRecipe, steps: range) -> list[float]:
    optimizer = torch.optim.SGD(lora_parameters(model).values(), lr=1.0)
    losses = []
    for step in steps:
        for micro_batch in range(2):
            loss = loss_of(model, seed=2 * step + micro_batch)
            torch.autograd.backward(loss)
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        applied.end_of_optimizer_step()
    return losses


@pytest.mark.parametrize("name", ["bf16", "fp8", "fp4", "qfp4"])
def test_training_resumed_from_safetensors_is_bit_for_bit_the_same(
    name: str, make_model: MakeModel, with_lora: WithLora, tmp_path: Path
) -> None:
    recipe = recipe_by_name(name)
    model = make_model()
    applied = apply(model, recipe, seed=3)
    whole = with_lora(model).train()
    train(whole, applied, range(2))
    save_file(applied.state_dict(), tmp_path / "recipe.safetensors")
    save_file({key: value.detach().clone() for key, value in lora_parameters(whole).items()}, tmp_path / "lora")
    expected = train(whole, applied, range(2, 4))

    model = make_model()
    applied = apply(model, recipe, seed=99)  # the seed's effect is overwritten
    resumed = with_lora(model).train()
    applied.load_state_dict(load_file(tmp_path / "recipe.safetensors"))
    for key, value in load_file(tmp_path / "lora").items():
        resumed.get_parameter(key).data.copy_(value)
    assert train(resumed, applied, range(2, 4)) == expected
    assert all(torch.equal(value, lora_parameters(resumed)[key]) for key, value in lora_parameters(whole).items())


def test_a_state_of_another_recipe_is_refused(make_model: MakeModel) -> None:
    fp8, fp4 = apply(make_model(), recipe_by_name("fp8")), apply(make_model(), recipe_by_name("fp4"))
    with pytest.raises(KeyError, match="stochastic_rounding"):
        fp8.load_state_dict(fp4.state_dict())
    with pytest.raises(KeyError, match="delayed_scaling"):
        apply(make_model(), recipe_by_name("bf16")).load_state_dict(fp8.state_dict())


def test_a_state_of_another_model_is_refused(make_model: MakeModel) -> None:
    larger = apply(make_model(num_hidden_layers=4), recipe_by_name("fp8"))
    with pytest.raises(RuntimeError, match=r"expected shape \(1024, 21\), found \(1024, 28\)"):
        apply(make_model(), recipe_by_name("fp8")).load_state_dict(larger.state_dict())
