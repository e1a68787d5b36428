"""No product depends on how a device treats an fp32 scalar beside bf16 values.

A GPU rounds a 0-dim fp32 tensor to bf16 before it multiplies a bf16 tensor by it; a CPU does not. The tests apply the
GPU's rule on the CPU: whatever goes through such an operation gives other values then.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3ForCausalLM

from surogate_bench.recipes import RECIPES, Recipe, WeightStorage
from surogate_bench_quantization.engines import select_engine
from surogate_bench_quantization.formats.nvfp4_packed import E2M1_VALUES
from surogate_bench_quantization.storage import freeze
from surogate_bench_trainer.model.recipe import apply_recipe

_LOW = (torch.bfloat16, torch.float16)
_ARITHMETIC = {"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "addcmul", "addcmul_", "maximum", "minimum"}


class ScalarsOfAGPU(TorchDispatchMode):
    """Round 0-dim fp32 operands of bf16 tensors to bf16."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        tensors = [argument for argument in args if isinstance(argument, Tensor)]
        low = next((tensor.dtype for tensor in tensors if tensor.ndim and tensor.dtype in _LOW), None)
        if low is not None and func.overloadpacket.__name__ in _ARITHMETIC:
            args = tuple(
                argument.to(low).float()
                if isinstance(argument, Tensor) and argument.ndim == 0 and argument.dtype == torch.float32
                else argument
                for argument in args
            )
        return func(*args, **(kwargs or {}))


def weight(shape: tuple[int, int] = (96, 160)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(torch.bfloat16)


def test_the_rule_of_a_gpu_is_emulated() -> None:
    values, scalar = torch.full((3,), 3.0, dtype=torch.bfloat16), torch.tensor(1.0039)
    with ScalarsOfAGPU():
        rounded = values * scalar
    assert torch.equal(rounded, torch.full((3,), 3.0, dtype=torch.bfloat16))
    assert not torch.equal(values * scalar, rounded)


@pytest.mark.parametrize("storage", [WeightStorage.FP8_128X128, WeightStorage.NVFP4])
def test_weights_are_dequantized_to_the_same_values_on_cpu_and_gpu(storage: WeightStorage) -> None:
    frozen = freeze(weight(), storage)
    expected = frozen.dequantize()
    with ScalarsOfAGPU():
        assert torch.equal(frozen.dequantize(), expected)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_step_of_every_recipe_is_equal_on_cpu_and_gpu(
    make_model: Callable[..., Qwen3ForCausalLM], with_lora: Callable[[Qwen3ForCausalLM], PeftModel], recipe: Recipe
) -> None:
    if torch.cuda.is_available():
        pytest.skip("the CPU's results are compared")

    def step() -> list[Tensor]:
        model = make_model()
        applied = apply_recipe(model, recipe, engine=select_engine(recipe, model.device, "auto"), seed=0)
        adapted = with_lora(model).train()
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(0))
        tokens = torch.arange(64).view(2, 32) % 101
        loss = adapted(input_ids=tokens, labels=tokens).loss
        loss.backward()
        applied.end_of_optimizer_step()
        return [loss.detach(), *(p.grad for p in adapted.parameters() if p.grad is not None)]

    expected = step()
    with ScalarsOfAGPU():
        found = step()
    assert len(expected) == len(found) > 1
    assert all(torch.equal(first, second) for first, second in zip(expected, found, strict=True))


def test_stored_nvfp4_is_its_codes_times_its_scales(device: torch.device) -> None:
    frozen: Any = freeze(weight().to(device), WeightStorage.NVFP4)
    codes = frozen.codes.cpu().numpy()
    elements = np.array(E2M1_VALUES, dtype=np.float32)[np.stack((codes & 15, codes >> 4), axis=-1)].reshape(96, 160)
    scales = np.repeat(frozen.block_scales.cpu().numpy().view(ml_dtypes.float8_e4m3fn).astype(np.float32), 16, axis=1)
    expected = (elements * scales * np.float32(frozen.tensor_scale.cpu())).astype(ml_dtypes.bfloat16)
    assert np.array_equal(frozen.dequantize().cpu().float().numpy(), expected.astype(np.float32))


def test_stored_fp8_tiles_are_their_codes_times_their_scales(device: torch.device) -> None:
    frozen: Any = freeze(weight((200, 160)).to(device), WeightStorage.FP8_128X128)
    codes = frozen.codes.cpu().numpy().view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    factors = frozen.inverse_scales.cpu().numpy().repeat(128, axis=0)[:200].repeat(128, axis=1)[:, :160]
    expected = (codes * factors).astype(ml_dtypes.bfloat16)
    assert np.array_equal(frozen.dequantize().cpu().float().numpy(), expected.astype(np.float32))
