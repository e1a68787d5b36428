"""Forward and backward products of the engines against float64 arithmetic on independently quantized operands."""

from dataclasses import replace
from typing import Literal

import ml_dtypes
import numpy as np
import pytest
import torch
from fouroversix import ScaleRule
from fouroversix.quantize.dequantize_utils import unpack_packed_fp4
from fouroversix.quantize.pytorch.reference import quantize_to_fp4
from numpy.typing import NDArray
from torch import Tensor, nn

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench_trainer.engines import EngineSession, select_engine
from surogate_bench_trainer.engines.emulated_products import scaled_product
from surogate_bench_trainer.formats.elements import uniform_noise
from surogate_bench_trainer.storage import freeze

CPU = torch.device("cpu")
SEED = 11
ROWS, INPUTS, OUTPUTS = 96, 64, 160
Matrix = NDArray[np.float64]

FP8 = Recipe(name="fp8", title="FP8", weight_storage=WeightStorage.BF16, compute=ComputePrecision.FP8_HYBRID)
FP4 = Recipe(name="fp4", title="FP4", weight_storage=WeightStorage.BF16, compute=ComputePrecision.NVFP4)
STORED = [WeightStorage.BF16, WeightStorage.FP8_128X128, WeightStorage.NVFP4]


def random(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, columns, generator=generator) * torch.randn(rows, 1, generator=generator).exp()).to(
        torch.bfloat16
    )


def make_linear(seed: int = 0) -> nn.Linear:
    layer = nn.Linear(INPUTS, OUTPUTS, bias=False, device="meta")
    layer.weight = nn.Parameter(random(OUTPUTS, INPUTS, seed) * 0.02, requires_grad=False)
    return layer


def start(recipe: Recipe, *, layers: int = 1) -> EngineSession:
    return select_engine(recipe, CPU).start(recipe, layers=layers, device=CPU, seed=SEED)


def both_products(layer: nn.Linear, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    inputs = inputs.detach().requires_grad_()
    outputs = layer(inputs)
    (input_gradients,) = torch.autograd.grad(outputs, inputs, gradients)
    return outputs.detach(), input_gradients


def fp8(values: Tensor, scale: np.float32, dtype: type) -> Matrix:
    """Values after quantization with a scale, divided by it again."""
    largest = np.float32(ml_dtypes.finfo(dtype).max)
    scaled: NDArray[np.float32] = np.clip(values.float().numpy() * scale, -largest, largest)
    narrow: Matrix = scaled.astype(dtype).astype(np.float64)
    return narrow / np.float64(scale)


def own_scale(values: Tensor, dtype: type) -> np.float32:
    return np.float32(ml_dtypes.finfo(dtype).max) / np.float32(values.abs().max().item())


def nvfp4(values: Tensor, *, squares: bool, four_over_six: bool) -> Matrix:
    rule, reach = (ScaleRule.mse, 1536) if four_over_six else (ScaleRule.static_6, 2688)
    codes, scales, amax = quantize_to_fp4(
        values, block_scale_2d=squares, scale_rule=rule, use_blackwell_scale_layout=False
    )
    elements = unpack_packed_fp4(codes).double()
    per_element = scales.double().view(values.shape[0], -1).repeat_interleave(16, dim=1)
    product: Matrix = (elements * per_element * amax.double() / reach).numpy()
    return product


def stochastic_nvfp4(values: Tensor) -> Matrix:
    """1x16 blocks rounded stochastically with the noise that the engine's generator gives first."""
    noise = uniform_noise(values, torch.Generator().manual_seed(SEED)).numpy()
    uniform = (noise.astype(np.float64) + 0.5) / 2**16 + 0.5
    amax = np.float32(values.abs().max().item())
    blocks = values.float().numpy().reshape(values.shape[0], -1, 16)
    encode = np.float32(2688) / amax
    scales = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(6) * encode
    scales = scales.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        elements = np.where(scales == 0, 0, blocks * np.float64(encode) / scales).reshape(values.shape)
    step = np.where(np.abs(elements) < 2, 0.5, np.where(np.abs(elements) < 4, 1.0, 2.0))
    elements = np.clip(np.floor(elements / step + uniform) * step, -6, 6)
    products: Matrix = elements * np.repeat(scales[:, :, 0], 16, axis=1) * np.float64(amax) / 2688
    return products


def assert_rounded_once(actual: Tensor, left: Matrix, right: Matrix) -> None:
    """Equal to the float64 product but for one rounding to bf16 and fp32 accumulation."""
    exact = left @ right
    half_unit_in_last_place = np.ldexp(1.0, np.frexp(exact)[1] - 9)
    tolerance = half_unit_in_last_place + 2.0**-22 * (np.abs(left) @ np.abs(right))
    assert actual.dtype == torch.bfloat16
    assert (np.abs(actual.double().numpy() - exact) <= tolerance).all()


def test_a_scaled_product_is_rounded_to_bf16_only_once() -> None:
    left, right = random(200, 96, 1), random(96, 300, 2)
    scale = torch.tensor(0.0123456789)
    exact = left.double() @ right.double() * scale.double()
    actual = scaled_product(left, right, scale)
    assert float((actual.double() - exact).norm() / exact.norm()) < 0.00175  # twice: 0.0024
    assert float((actual == exact.to(torch.bfloat16)).float().mean()) > 0.998


@pytest.mark.parametrize("storage", STORED)
def test_fp8_products_equal_float64_products_of_the_codes(storage: WeightStorage) -> None:
    recipe = replace(FP8, weight_storage=storage)
    session, layer = start(recipe), make_linear()
    stored = freeze(layer.weight, storage).dequantize()
    weight = fp8(stored, own_scale(stored, ml_dtypes.float8_e4m3fn), ml_dtypes.float8_e4m3fn)
    quantized = session.replace(layer)
    inputs, gradients = random(ROWS, INPUTS, 1), random(ROWS, OUTPUTS, 2) * 1e-4
    largest = inputs.abs().max().item()
    for scale in (np.float32(1), np.float32(448) / np.float32(largest)):  # the first step's, and the second's
        outputs, input_gradients = both_products(quantized, inputs, gradients)
        assert_rounded_once(outputs, fp8(inputs, scale, ml_dtypes.float8_e4m3fn), weight.T)
        scale_of_gradients = own_scale(gradients, ml_dtypes.float8_e5m2)
        assert_rounded_once(input_gradients, fp8(gradients, scale_of_gradients, ml_dtypes.float8_e5m2), weight)
        session.end_of_optimizer_step()


@pytest.mark.parametrize("storage", STORED)
@pytest.mark.parametrize("profile", ["paper", "surogate"])
def test_nvfp4_products_equal_float64_products_of_the_blocks(
    storage: WeightStorage, profile: Literal["paper", "surogate"]
) -> None:
    recipe = replace(FP4, weight_storage=storage, fp4_profile=profile)
    layer = make_linear()
    stored = freeze(layer.weight, storage).dequantize()
    squares = profile == "paper"
    weight = nvfp4(stored, squares=squares, four_over_six=True)
    transposed = weight.T if squares else nvfp4(stored.t().contiguous(), squares=False, four_over_six=False)
    quantized = start(recipe).replace(layer)
    inputs, gradients = random(ROWS, INPUTS, 1), random(ROWS, OUTPUTS, 2) * 1e-4
    outputs, input_gradients = both_products(quantized, inputs, gradients)
    assert_rounded_once(outputs, nvfp4(inputs, squares=False, four_over_six=True), weight.T)
    assert_rounded_once(input_gradients, stochastic_nvfp4(gradients), transposed.T)


@pytest.mark.parametrize("storage", [WeightStorage.FP8_128X128, WeightStorage.NVFP4])
def test_bf16_products_use_the_dequantized_weight_in_both_passes(storage: WeightStorage) -> None:
    recipe = Recipe(name="stored", title="", weight_storage=storage, compute=ComputePrecision.BF16)
    layer = make_linear()
    stored = freeze(layer.weight, storage).dequantize().double().numpy()
    inputs, gradients = random(ROWS, INPUTS, 1), random(ROWS, OUTPUTS, 2)
    outputs, input_gradients = both_products(start(recipe).replace(layer), inputs, gradients)
    assert_rounded_once(outputs, inputs.double().numpy(), stored.T)
    assert_rounded_once(input_gradients, gradients.double().numpy(), stored)


@pytest.mark.parametrize("recipe", [FP8, FP4], ids=["fp8", "fp4"])
def test_layers_that_share_an_input_compute_what_they_compute_alone(recipe: Recipe) -> None:
    session = start(recipe, layers=2)
    first, second = session.replace(make_linear(0)), session.replace(make_linear(1))
    inputs = random(ROWS, INPUTS, 3)
    shared = first(inputs), second(inputs)
    assert torch.equal(shared[0], first(inputs.clone()))
    assert torch.equal(shared[1], second(inputs.clone()))


@pytest.mark.parametrize("recipe", [FP8, FP4], ids=["fp8", "fp4"])
def test_an_input_changed_in_place_is_quantized_again(recipe: Recipe) -> None:
    layer = start(recipe).replace(make_linear())
    inputs = random(ROWS, INPUTS, 3)
    before = layer(inputs)
    inputs.mul_(-2.0)
    after = layer(inputs)
    assert torch.equal(after, layer(inputs.clone()))
    assert not torch.equal(after, before)


@pytest.mark.parametrize("recipe", [FP8, FP4], ids=["fp8", "fp4"])
def test_inference_mode_computes_the_same(recipe: Recipe) -> None:
    layer = start(recipe).replace(make_linear()).eval()
    inputs = random(ROWS, INPUTS, 3)
    expected = layer(inputs)
    with torch.inference_mode():
        hidden = inputs * 1
        assert torch.equal(layer(hidden), expected)
        hidden.zero_()
        assert not layer(hidden).any()


@pytest.mark.parametrize("recipe", [FP8, FP4], ids=["fp8", "fp4"])
def test_leading_dimensions_and_bias_are_those_of_a_linear_layer(recipe: Recipe) -> None:
    layer = make_linear()
    layer.bias = nn.Parameter(random(1, OUTPUTS, 4).view(-1), requires_grad=False)
    quantized = start(recipe).replace(layer)
    inputs = random(6, INPUTS, 5).view(2, 3, INPUTS)
    without_bias = start(recipe).replace(make_linear())(inputs)
    assert without_bias.shape == (2, 3, OUTPUTS)
    assert torch.equal(quantized(inputs), without_bias + layer.bias)


def test_stochastic_rounding_of_gradients_repeats_with_the_seed_and_differs_between_steps() -> None:
    inputs, gradients = random(ROWS, INPUTS, 1), random(ROWS, OUTPUTS, 2)
    runs = []
    for _ in range(2):
        layer = start(FP4).replace(make_linear())
        runs.append([both_products(layer, inputs, gradients)[1] for _ in range(2)])
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[0][1])
