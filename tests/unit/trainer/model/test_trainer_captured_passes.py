"""Padding for CUDA graphs, which changes nothing that is learned; and on a GPU, the graphs themselves."""

import random
from collections.abc import Callable, Sequence

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import Qwen3ForCausalLM

from surogate_bench.recipes import RECIPES, Recipe, recipe_by_name
from surogate_bench.specs.lora import LoraSpec
from surogate_bench_quantization.engines import select_engine
from surogate_bench_trainer.data.batches import PackedBatch, collate
from surogate_bench_trainer.data.encoding import Sample
from surogate_bench_trainer.model.attention.packed import IMPLEMENTATION
from surogate_bench_trainer.model.captured_passes import CapturedPasses, padded, size_of
from surogate_bench_trainer.model.lora import attach_lora, lora_layers
from surogate_bench_trainer.model.loss import IGNORED
from surogate_bench_trainer.model.passes import Passes, PlainPasses
from surogate_bench_trainer.model.recipe import AppliedRecipe, apply_recipe

CPU = torch.device("cpu")
MakeModel = Callable[..., Qwen3ForCausalLM]
SPEC = LoraSpec(r=4, alpha=8, target_modules=("q_proj", "v_proj", "gate_proj", "down_proj"))


def batch_of(lengths: Sequence[int], device: torch.device = CPU) -> PackedBatch:
    drawn = random.Random(sum(lengths))
    samples = [Sample([drawn.randrange(2, 320) for _ in range(length)], length // 3) for length in lengths]
    return collate(samples, "completion", device)


def learner(make_model: MakeModel, recipe: Recipe, device: torch.device = CPU) -> tuple[PeftModel, AppliedRecipe]:
    model = make_model(attn_implementation=IMPLEMENTATION).to(device, torch.bfloat16)
    applied = apply_recipe(model, recipe, engine=select_engine(recipe, device), seed=5)
    adapted = attach_lora(model, SPEC, base_model="toy", seed=0).train()
    generator = torch.Generator().manual_seed(2)
    for layer in lora_layers(adapted):
        b = layer.lora_B["default"].weight
        b.data.copy_(torch.empty(b.shape).normal_(std=0.05, generator=generator))
    for parameter in trainable(adapted):
        parameter.grad = torch.zeros_like(parameter)
    return adapted, applied


def trainable(model: PeftModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def gradients(model: PeftModel) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in trainable(model) if parameter.grad is not None])


@pytest.mark.parametrize("lengths", [(40,), (200, 90, 31), (90,) * 11, (256,), (3, 3), (300, 212)])
def test_a_padded_stream_has_the_requested_size_and_no_further_counted_token(lengths: tuple[int, ...]) -> None:
    batch = batch_of(lengths)
    size = size_of(batch)
    stream = padded(batch, size)
    assert stream.input_ids.shape == stream.position_ids.shape == (1, size.tokens)
    assert size.tokens % 256 == 0
    assert 0 <= size.tokens - batch.tokens < 256
    assert sum(stream.lengths) == size.tokens
    assert len(stream.lengths) <= size.samples
    assert max(stream.lengths) == lengths[0] <= size.longest
    assert stream.targets.shape == stream.predicting.shape == (size.counted,)
    assert int((stream.targets != IGNORED).sum()) == batch.counted
    assert torch.equal(stream.input_ids[:, : batch.tokens], batch.input_ids)
    for start, length in zip([0, *torch.tensor(stream.lengths).cumsum(0).tolist()], stream.lengths, strict=False):
        assert stream.position_ids[0, start : start + length].tolist() == list(range(length))


@pytest.mark.parametrize("name", ["bf16", "fp8", "qfp4"])
def test_padding_changes_neither_loss_nor_gradients_nor_scales(name: str, make_model: MakeModel) -> None:
    batch = batch_of((70, 41, 23))
    found = []
    for stream in (batch, padded(batch, size_of(batch))):
        model, applied = learner(make_model, recipe_by_name(name))
        loss = PlainPasses(model)(stream, 1 / batch.counted)
        found.append((loss, gradients(model), applied.state_dict()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=0)
    assert torch.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.9999
    torch.testing.assert_close(found[0][1].norm(), found[1][1].norm(), rtol=1e-2, atol=0)
    amaxes = [state.get("delayed_scaling.amax", torch.zeros(0)) for _, _, state in found]
    torch.testing.assert_close(amaxes[0], amaxes[1], rtol=0.01, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_captured_passes_learn_what_plain_ones_do(recipe: Recipe, make_model: MakeModel) -> None:
    device = torch.device("cuda", 0)
    shapes = [(400, 90, 31), (380, 100, 20), (350, 99, 50), (90, 80), (88, 70), (400, 100, 3), (85, 60)]
    found: list[list[tuple[float, Tensor]]] = []
    for captured in (False, True):
        model, applied = learner(make_model, recipe, device)
        passes: Passes = CapturedPasses(model, applied.session.generators) if captured else PlainPasses(model)
        steps = []
        for shape in shapes:
            batch = batch_of(shape, device)
            for parameter in trainable(model):
                parameter.grad.zero_()
            loss = float(passes(padded(batch, size_of(batch)) if not captured else batch, 1 / batch.counted))
            applied.end_of_optimizer_step()
            steps.append((loss, gradients(model).clone()))
        found.append(steps)
    for (loss, gradient), (expected_loss, expected) in zip(found[1], found[0], strict=True):
        assert loss == pytest.approx(expected_loss, rel=1e-3)
        assert torch.cosine_similarity(gradient, expected, dim=0) > 0.999
    assert len({loss for loss, _ in found[1]}) == len(shapes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_replay_draws_new_noise_and_the_generator_resumes(make_model: MakeModel) -> None:
    device = torch.device("cuda", 0)
    batch = batch_of((200, 90, 31), device)
    model, applied = learner(make_model, recipe_by_name("fp4"), device)
    passes = CapturedPasses(model, applied.session.generators)

    def gradient() -> Tensor:
        for parameter in trainable(model):
            parameter.grad.zero_()
        passes(batch, 1 / batch.counted)
        return gradients(model).clone()

    _, first = gradient(), gradient()
    state = {name: tensor.clone() for name, tensor in applied.state_dict().items()}
    second, third = gradient(), gradient()
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    applied.load_state_dict(state)
    assert torch.cosine_similarity(gradient(), second, dim=0) > 0.99999
    assert torch.cosine_similarity(second, third, dim=0) < 0.99999
