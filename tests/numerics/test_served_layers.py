"""Layers of vLLM under a recipe against the layers that the trainer makes, on the same inputs."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny_models import TinyModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from surogate_bench.contract import INPUT_SCALES_FILE, SERVED_RECIPE_VARIABLE
from surogate_bench.recipes import RECIPES, ComputePrecision, Recipe, WeightStorage
from surogate_bench.specs.model import ModelSpec
from surogate_bench.stages.model_source import local_model_folder
from surogate_bench_model_server.served_recipe import register
from surogate_bench_model_server.served_recipe.settings import QUANTIZATION, ServedRecipe
from surogate_bench_quantization.engines import select_engine
from surogate_bench_trainer.model.recipe import AppliedRecipe, apply_recipe

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM and what it imports warn about each other
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.config import set_current_vllm_config
    from vllm.distributed import cleanup_dist_env_and_memory, init_distributed_environment, initialize_model_parallel
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader import get_model

MODEL = str(local_model_folder(ModelSpec(builtin="tiny-qwen3-en")))
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
TOKENS = 24
ACCUMULATION = 2.0**-20
"""Error of an fp32 sum in any order, relative to the sum of magnitudes."""
SPECIAL = (
    Recipe(
        name="skipping",
        title="",
        weight_storage=WeightStorage.FP8_128X128,
        compute=ComputePrecision.FP8_HYBRID,
        skip_first_layers=1,
        skip_last_layers=1,
        fp8_margin=1,
    ),
    Recipe(
        name="rows",
        title="",
        weight_storage=WeightStorage.NVFP4,
        compute=ComputePrecision.NVFP4,
        fp4_profile="surogate",
    ),
)
EVERY_RECIPE = pytest.mark.parametrize("recipe", [*RECIPES, *SPECIAL], ids=lambda recipe: recipe.name)


@dataclass
class Served:
    """vLLM's model under a recipe."""

    model: Any
    config: Any

    def layer(self, path: str) -> Any:
        return self.model.get_submodule(path)

    def outputs(self, path: str, inputs: Tensor) -> Tensor:
        layer = self.layer(path)
        with torch.inference_mode():
            outputs: Tensor = layer.quant_method.apply(layer, inputs, None).clone()
        return outputs

    def use(self, adapters: dict[int, dict[str, Tensor]], tokens: list[int], folder: Path) -> None:
        """Load input scales by adapter, and say which adapter each token of the next batch has."""
        for number, scales in adapters.items():
            at = folder / str(number)
            at.mkdir()
            save_file(scales, at / INPUT_SCALES_FILE)
            self.config.quant_config.fp8_input_scales().load(number, f"adapter-{number}", at)
        self.config.quant_config.fp8_input_scales().set_batch(tokens)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What vLLM needs around a model: a group of one process."""
    at = tmp_path_factory.mktemp("distributed") / "rendezvous"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        with set_current_vllm_config(EngineArgs(model=MODEL, dtype="bfloat16").create_engine_config()):
            init_distributed_environment(1, 0, f"file://{at}", 0, "gloo")
            initialize_model_parallel()
        yield
        cleanup_dist_env_and_memory()


@pytest.fixture
def serve(one_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Served]:
    del one_process
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)  # as vLLM's worker for CPUs does

    def make(recipe: Recipe, checkpoint: str = MODEL) -> Served:
        quantized = {}
        if recipe.quantizes:
            monkeypatch.setenv(SERVED_RECIPE_VARIABLE, str(ServedRecipe(recipe=recipe).write(tmp_path)))
            register()
            quantized = {"quantization": QUANTIZATION}
        config = EngineArgs(model=checkpoint, dtype="bfloat16", enforce_eager=True, **quantized).create_engine_config()
        with set_current_vllm_config(config):
            return Served(get_model(vllm_config=config), config)

    return make


def trained(recipe: Recipe, *, steps: int = 1, checkpoint: str = MODEL) -> tuple[PreTrainedModel, AppliedRecipe]:
    """Make the trainer's model, after forward passes that move the scales of FP8 inputs."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    device = torch.device("cpu")
    applied = apply_recipe(model, recipe, engine=select_engine(recipe, device), seed=0)
    model.train()
    for step in range(steps):
        with torch.no_grad():
            model(input_ids=token_ids(seed=step))
        applied.end_of_optimizer_step()
    return model.eval(), applied


def token_ids(seed: int) -> Tensor:
    return torch.randint(3, 400, (1, TOKENS), generator=torch.Generator().manual_seed(seed))


def inputs_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Run the model; inputs (tokens, in_features) of every linear layer in its blocks, by path."""
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _module, given, path=path: found.__setitem__(path, given[0].detach().flatten(0, 1).clone())
        )
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".layers." in path
    ]
    with torch.no_grad():
        model(input_ids=token_ids(seed=99))
    for hook in hooks:
        hook.remove()
    return found


def trainer_outputs(model: PreTrainedModel, path: str, inputs: Tensor, *, by_token: bool = False) -> Tensor:
    """Outputs of the trainer's layers that vLLM fuses at ``path``; every token by itself if asked."""
    parent, _, last = path.rpartition(".")
    batches = inputs.split(1) if by_token else (inputs,)
    layers = [model.get_submodule(f"{parent}.{name}") for name in FUSED.get(last, (last,))]
    with torch.no_grad():
        return torch.cat([torch.cat([layer(batch) for layer in layers], dim=1) for batch in batches])


def fused_paths(served: Served) -> list[str]:
    ends = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    return [path for path, _ in served.model.named_modules() if path.endswith(ends)]


def first_input(inputs: dict[str, Tensor], path: str) -> Tensor:
    parent, _, last = path.rpartition(".")
    return inputs[f"{parent}.{FUSED.get(last, (last,))[0]}"]


def assert_equal_up_to_summation_order(ours: Tensor, theirs: Tensor, magnitudes: Tensor) -> None:
    """Both are an fp32 sum rounded once to bf16: they differ by one unit in the last place, where a sum was close."""
    unit = torch.maximum(ours.abs(), theirs.abs()).float() * 2.0**-7
    difference = (ours.float() - theirs.float()).abs()
    assert bool((difference <= unit + magnitudes * ACCUMULATION).all())
    assert float((difference > 0).float().mean()) < 0.05


@EVERY_RECIPE
def test_every_layer_multiplies_as_in_training(recipe: Recipe, serve: Callable[..., Served], tmp_path: Path) -> None:
    check_layers(recipe, serve, tmp_path)


@pytest.mark.parametrize("compute", list(ComputePrecision))
def test_layers_that_were_padded_multiply_as_in_training(
    compute: ComputePrecision, serve: Callable[..., Served], tmp_path: Path
) -> None:
    TinyModel(kind="qwen3", settings={"vocab_size": 1024, "intermediate_size": 40}).save(
        tmp_path / "model", AutoTokenizer.from_pretrained(MODEL)
    )
    recipe = Recipe(name="padded", title="", weight_storage=WeightStorage.NVFP4, compute=compute, on_indivisible="pad")
    check_layers(recipe, serve, tmp_path, checkpoint=str(tmp_path / "model"))


def check_layers(recipe: Recipe, serve: Callable[..., Served], tmp_path: Path, *, checkpoint: str = MODEL) -> None:
    model, applied = trained(recipe, checkpoint=checkpoint)
    served = serve(recipe, checkpoint)
    inputs = inputs_of(model)
    if scales := applied.input_scales():
        served.use({1: scales}, [1] * TOKENS, tmp_path)
    by_token = recipe.compute is ComputePrecision.NVFP4
    paths = fused_paths(served)
    assert len(paths) == 4 * model.config.num_hidden_layers
    for path in paths:
        given = first_input(inputs, path)
        ours = served.outputs(path, given)
        theirs = trainer_outputs(model, path, given, by_token=by_token)
        if recipe.compute is ComputePrecision.FP8_HYBRID and hasattr(served.layer(path), "recipe_products"):
            assert torch.equal(ours, theirs), path
        else:
            largest_weight = 4.0  # bounds |x| |W| generously
            magnitudes = given.float().abs().sum(dim=1, keepdim=True) * largest_weight
            assert_equal_up_to_summation_order(ours, theirs, magnitudes)


def test_tokens_of_one_batch_take_the_scales_of_their_adapters(
    serve: Callable[[Recipe], Served], tmp_path: Path
) -> None:
    recipe = next(each for each in RECIPES if each.name == "fp8")
    (first, one), (second, other) = trained(recipe, steps=1), trained(recipe, steps=4)
    assert one.input_scales() != other.input_scales()
    served = serve(recipe)
    inputs = inputs_of(first)
    adapters = [1 + number % 2 for number in range(TOKENS)]
    served.use({1: one.input_scales(), 2: other.input_scales()}, adapters, tmp_path)
    for path in fused_paths(served):
        given = first_input(inputs, path)
        ours = served.outputs(path, given)
        assert torch.equal(ours[0::2], trainer_outputs(first, path, given[0::2].contiguous()))
        assert torch.equal(ours[1::2], trainer_outputs(second, path, given[1::2].contiguous()))


def test_blocks_that_a_recipe_skips_stay_as_they_are(serve: Callable[[Recipe], Served]) -> None:
    served = serve(SPECIAL[0])
    blocks = served.config.model_config.hf_config.num_hidden_layers
    covered = [path for path in fused_paths(served) if hasattr(served.layer(path), "recipe_products")]
    assert {int(path.split(".")[2]) for path in covered} == set(range(1, blocks - 1))
    assert len(covered) == 4 * (blocks - 2)


def test_an_adapter_without_scales_is_refused_until_its_inputs_were_measured(
    serve: Callable[[Recipe], Served], tmp_path: Path
) -> None:
    recipe = next(each for each in RECIPES if each.name == "fp8")
    served = serve(recipe)
    scales = served.config.quant_config.fp8_input_scales()
    with pytest.raises(ValueError, match="bf16-s0 has no input_scales"):
        scales.load(1, "bf16-s0", tmp_path)
    model, _ = trained(recipe)
    inputs = inputs_of(model)
    scales.load(2, "bf16-s0-calibrating", tmp_path)
    for start in (0, 8):  # two prompts
        scales.set_batch([2] * 8)
        for path in fused_paths(served):
            served.outputs(path, first_input(inputs, path)[start : start + 8].contiguous())
    scales.load(3, "bf16-s0", tmp_path)
    found = load_file(tmp_path / INPUT_SCALES_FILE)
    path = "model.layers.0.self_attn.k_proj"
    assert found[path] == torch.tensor(448.0) / inputs[path][:16].abs().max().float()
    save_file({"other": torch.ones(())}, tmp_path / INPUT_SCALES_FILE)
    with pytest.raises(ValueError, match="does not fit the model"):
        scales.load(4, "bf16-s0", tmp_path)
