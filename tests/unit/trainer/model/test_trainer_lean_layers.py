"""Our norm, rotation, LoRA layer and loss against those of transformers, PEFT and torch."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import Qwen3ForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from surogate_bench.specs import LoraSpec
from surogate_bench_trainer.model.lean_layers import make_lean, rotate_queries_and_keys
from surogate_bench_trainer.model.lora import ADAPTER, attach_lora, lora_layers
from surogate_bench_trainer.model.loss import IGNORED, cross_entropy

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SPEC = LoraSpec(r=4, alpha=12)


def reference_rotation(tensor: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = tensor.chunk(2, dim=-1)
    return tensor * cos.unsqueeze(1) + torch.cat((-second, first), dim=-1) * sin.unsqueeze(1)


@pytest.mark.parametrize("kind", [Qwen3RMSNorm, LlamaRMSNorm])
@pytest.mark.parametrize("shape", [(1, 7, 64), (1, 7, 4, 16)])
def test_the_lean_norm_equals_the_models_own(
    make_model: Callable[..., Qwen3ForCausalLM], kind: type[torch.nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    own, lean = kind(shape[-1], eps=1e-3), kind(shape[-1], eps=1e-3)
    lean.weight = own.weight = torch.nn.Parameter(torch.rand(shape[-1]) + 0.5, requires_grad=False)
    model = make_model()
    model.model.norm = lean
    make_lean(model)
    inputs = torch.randn(shape, requires_grad=True)
    gradient = torch.randn(shape)
    torch.testing.assert_close(lean(inputs), own(inputs))
    (expected,) = torch.autograd.grad(own(inputs), inputs, gradient)
    (actual,) = torch.autograd.grad(lean(inputs), inputs, gradient)
    torch.testing.assert_close(actual, expected)


def test_the_lean_rotation_equals_the_textbook_one() -> None:
    torch.manual_seed(0)
    angles = torch.outer(torch.arange(9.0), torch.tensor([1.0, 0.3, 0.1, 0.02])).repeat(1, 2).unsqueeze(0)
    cos, sin = angles.cos(), angles.sin()
    queries = torch.randn(1, 9, 4, 8, requires_grad=True)
    keys = torch.randn(1, 9, 2, 8, requires_grad=True)
    gradients = torch.randn(1, 4, 9, 8), torch.randn(1, 2, 9, 8)
    rotated = rotate_queries_and_keys(queries.transpose(1, 2), keys.transpose(1, 2), cos, sin)
    expected = [reference_rotation(tensor.transpose(1, 2), cos, sin) for tensor in (queries, keys)]
    for actual, desired in zip(rotated, expected, strict=True):
        torch.testing.assert_close(actual, desired)
    for actual, desired in zip(
        torch.autograd.grad(rotated, (queries, keys), gradients),
        torch.autograd.grad(expected, (queries, keys), gradients),
        strict=True,
    ):
        torch.testing.assert_close(actual, desired)


def test_a_model_made_lean_gives_the_same_logits(make_model: Callable[..., Qwen3ForCausalLM]) -> None:
    tokens = torch.arange(2, 40).unsqueeze(0)
    own = make_model()(input_ids=tokens).logits
    lean = make_model()
    make_lean(lean)
    torch.testing.assert_close(lean(input_ids=tokens).logits, own, rtol=1e-5, atol=1e-5)


def test_an_unknown_architecture_is_left_as_it_is(make_model: Callable[..., Qwen3ForCausalLM]) -> None:
    model = make_model()
    model.config.model_type = "something-new"
    make_lean(model)
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_lean_lora_layer_equals_pefts(make_model: Callable[..., Qwen3ForCausalLM], dropout: float) -> None:
    lean = attach_lora(make_model(), SPEC.model_copy(update={"dropout": dropout}), base_model="toy", seed=1)
    config = LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    own = get_peft_model(make_model(), config)
    with torch.no_grad():
        for name, parameter in lean.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    own.load_state_dict(lean.state_dict())
    tokens = torch.arange(2, 40).unsqueeze(0)
    found = []
    for model in (own, lean):
        model.train()
        torch.manual_seed(5)
        logits = model(input_ids=tokens).logits
        logits.square().mean().backward()
        found.append((logits, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    (own_logits, own_gradients), (lean_logits, lean_gradients) = found
    torch.testing.assert_close(lean_logits, own_logits, rtol=1e-5, atol=1e-5)
    assert len(lean_gradients) == 2 * 2 * len(PROJECTIONS)
    for name, gradient in own_gradients.items():
        torch.testing.assert_close(lean_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_lora_products_are_bf16_and_its_master_weights_and_gradients_fp32(
    make_model: Callable[..., Qwen3ForCausalLM],
) -> None:
    model = attach_lora(make_model().to(torch.bfloat16), SPEC, base_model="toy", seed=1)
    logits = model(input_ids=torch.arange(2, 40).unsqueeze(0)).logits
    logits.float().square().mean().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert logits.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in trained)


def test_adapters_start_the_same_whatever_the_type_of_the_base(make_model: Callable[..., Qwen3ForCausalLM]) -> None:
    starts = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(int(dtype.itemsize))
        model = attach_lora(make_model().to(dtype), SPEC, base_model="toy", seed=7)
        starts.append([layer.lora_A[ADAPTER].weight for layer in lora_layers(model)])
        assert all(layer.lora_B[ADAPTER].weight.count_nonzero() == 0 for layer in lora_layers(model))
    assert len(starts[0]) == 14
    assert all(torch.equal(first, second) for first, second in zip(*starts, strict=True))
    assert any(a.bfloat16().float().ne(a).any() for a in starts[1])  # drawn in fp32, not rounded
    bounds = [a.abs().max().item() * a.shape[1] ** 0.5 for a in starts[0]]
    assert 0.9 < min(bounds) <= max(bounds) <= 1.0


@pytest.mark.parametrize("rows", [1, 40])
def test_the_loss_equals_torchs_rows_without_a_target_included(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("surogate_bench_trainer.model.loss._CHUNK", {"cpu": 33 * 7})
    torch.manual_seed(0)
    logits = (torch.randn(rows, 33) * 4).requires_grad_()
    targets = torch.randint(0, 33, (rows,))
    targets[1::3] = IGNORED
    expected = torch.nn.functional.cross_entropy(logits, targets)
    actual = cross_entropy(logits, targets, weight=1 / int((targets != IGNORED).sum()))
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(actual, logits), torch.autograd.grad(expected, logits))


def test_the_gradient_of_bf16_logits_is_rounded_once() -> None:
    torch.manual_seed(0)
    logits = torch.randn(30, 50).bfloat16().requires_grad_()
    targets = torch.randint(0, 50, (30,))
    exact = logits.detach().double().requires_grad_()
    torch.nn.functional.cross_entropy(exact, targets, reduction="sum").mul(1 / 37).backward()
    (actual,) = torch.autograd.grad(cross_entropy(logits, targets, weight=1 / 37), logits)
    assert exact.grad is not None
    torch.testing.assert_close(actual.double(), exact.grad, rtol=2**-8 + 1e-4, atol=1e-9)
