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
from surogate_bench_quantization.engines import EngineSession, select_engine
from surogate_bench_quantization.engines.emulated_products import scaled_product
from surogate_bench_quantization.engines.fp8.session import FP8Session
from surogate_bench_quantization.engines.fp8.tensor_cores import TensorCoreFP8Products
from surogate_bench_quantization.formats.elements import uniform_noise
from surogate_bench_quantization.storage import freeze

SEED = 11
ROWS, INPUTS, OUTPUTS = 96, 64, 160
Matrix = NDArray[np.float64]

FP8 = Recipe(name="fp8", title="FP8", weight_storage=WeightStorage.BF16, compute=ComputePrecision.FP8_HYBRID)
FP4 = Recipe(name="fp4", title="FP4", weight_storage=WeightStorage.BF16, compute=ComputePrecision.NVFP4)
LOW_PRECISION = pytest.mark.parametrize(
    ("recipe", "engine"),
    [(FP8, "emulated"), (FP8, "torch"), (FP4, "emulated")],
    ids=["fp8-emulated", "fp8-torch", "fp4-emulated"],
)
ACCUMULATION = {"cpu": 2.0**-22, "cuda": 2.0**-19}
"""Error of sums of bf16 products, relative to the sum of magnitudes; tensor cores cut off what they cannot hold."""
FP8_ACCUMULATION = {"cpu": 2.0**-22, "cuda": 2.0**-11}
"""The same of FP8 products, which Hopper's tensor cores sum with about 14 bits."""
STORED = [WeightStorage.BF16, WeightStorage.FP8_128X128, WeightStorage.NVFP4]


def random(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, columns, generator=generator) * torch.randn(rows, 1, generator=generator).exp()).to(
        torch.bfloat16
    )


def make_linear(device: torch.device, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(INPUTS, OUTPUTS, bias=False, device="meta")
    layer.weight = nn.Parameter((random(OUTPUTS, INPUTS, seed) * 0.02).to(device), requires_grad=False)
    return layer


def start(recipe: Recipe, device: torch.device, *, engine: str = "emulated", layers: int = 1) -> EngineSession:
    if engine == "torch" and device.type == "cpu":  # not chosen there, but torch multiplies FP8 on a CPU too
        return FP8Session(recipe, TensorCoreFP8Products, layers=layers, device=device)
    return select_engine(recipe, device, engine).start(recipe, layers=layers, device=device, seed=SEED)


def both_products(layer: nn.Linear, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    device = layer.weight.device
    inputs = inputs.to(device, copy=True).requires_grad_()
    outputs = layer(inputs)
    (input_gradients,) = torch.autograd.grad(outputs, inputs, gradients.to(device))
    return outputs.detach().cpu(), input_gradients.cpu()


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


def stochastic_nvfp4(values: Tensor, device: torch.device) -> Matrix:
    """1x16 blocks rounded stochastically with the noise that the engine's generator gives first."""
    noise = uniform_noise(values.to(device), torch.Generator(device).manual_seed(SEED)).cpu().numpy()
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


def assert_rounded_once(actual: Tensor, left: Matrix, right: Matrix, *, accumulation: float) -> None:
    """Equal to the float64 product but for one rounding to bf16 and the accumulation's error."""
    exact = left @ right
    half_unit_in_last_place = np.ldexp(1.0, np.frexp(exact)[1] - 9)
    tolerance = half_unit_in_last_place + accumulation * (np.abs(left) @ np.abs(right))
    assert actual.dtype == torch.bfloat16
    assert (np.abs(actual.double().numpy() - exact) <= tolerance).all()


def test_a_scaled_product_is_rounded_to_bf16_only_once(device: torch.device) -> None:
    left, right = random(200, 96, 1), random(96, 300, 2)
    scale = torch.tensor(0.0123456789)
    exact = left.double() @ right.double() * scale.double()
    actual = scaled_product(left.to(device), right.to(device), scale.to(device)).cpu()
    assert float((actual.double() - exact).norm() / exact.norm()) < 0.00175  # twice: 0.0024
    assert float((actual == exact.to(torch.bfloat16)).float().mean()) > 0.998


@pytest.mark.parametrize("storage", STORED)
@pytest.mark.parametrize("engine", ["emulated", "torch"])
def test_fp8_products_equal_float64_products_of_the_codes(
    engine: str, storage: WeightStorage, device: torch.device
) -> None:
    recipe = replace(FP8, weight_storage=storage)
    accumulation = (FP8_ACCUMULATION if engine == "torch" else ACCUMULATION)[device.type]
    session, layer = start(recipe, device, engine=engine), make_linear(device)
    stored = freeze(layer.weight, storage).dequantize()
    stored = stored.cpu()
    weight = fp8(stored, own_scale(stored, ml_dtypes.float8_e4m3fn), ml_dtypes.float8_e4m3fn)
    quantized = session.replace(layer)
    inputs, gradients = random(ROWS, INPUTS, 1), random(ROWS, OUTPUTS, 2) * 1e-4
    largest = inputs.abs().max().item()
    for scale in (np.float32(1), np.float32(448) / np.float32(largest)):  # the first step's, and the second's
        outputs, input_gradients = both_products(quantized, inputs, gradients)
        codes = fp8(inputs, scale, ml_dtypes.float8_e4m3fn)
        assert_rounded_once(outputs, codes, weight.T, accumulation=accumulation)
        codes = fp8(gradients, own_scale(gradients, ml_dtypes.float8_e5m2), ml_dtypes.float8_e5m2)
        assert_rounded_once(input_gradients, codes, weight, accumulation=accumulation)
        session.end_of_optimizer_step()


@pytest.mark.parametrize("storage", STORED)
@pytest.mark.parametrize("profile", ["paper", "surogate"])
def test_nvfp4_products_equal_float64_products_of_the_blocks(
    storage: WeightStorage, profile: Literal["paper", "surogate"], device: torch.device
) -> None:
    recipe = replace(FP4, weight_storage=storage, fp4_profile=profile)
    layer = make_linear(device)
    stored = freeze(layer.weight, storage).dequantize().cpu()
    squares = profile == "paper"
    weight = nvfp4(stored, squares=squares, four_over_six=True)
    transposed = weight.T if squares else nvfp4(stored.t().contiguous(), squares=False, four_over_six=False)
    quantized = start(recipe, device).replace(layer)
    inputs, gradients = random(ROWS, INPUTS, 1), random(ROWS, OUTPUTS, 2) * 1e-4
    outputs, input_gradients = both_products(quantized, inputs, gradients)
    accumulation = ACCUMULATION[device.type]
    codes = nvfp4(inputs, squares=False, four_over_six=True)
    assert_rounded_once(outputs, codes, weight.T, accumulation=accumulation)
    codes = stochastic_nvfp4(gradients, device)
    assert_rounded_once(input_gradients, codes, transposed.T, accumulation=accumulation)


@pytest.mark.parametrize("storage", STORED)
@pytest.mark.parametrize("profile", ["paper", "surogate"])
@pytest.mark.parametrize(("columns", "rows"), [(40, 24), (48, 24), (40, 32), (17, 1)])
def test_nvfp4_products_of_widths_that_blocks_do_not_divide_are_those_with_zeros_behind_them(
    storage: WeightStorage, profile: Literal["paper", "surogate"], columns: int, rows: int, device: torch.device
) -> None:
    recipe = replace(FP4, weight_storage=storage, fp4_profile=profile)
    width, height = -(-columns // 16) * 16, -(-rows // 16) * 16
    layer, whole = nn.Linear(columns, rows, bias=False, device="meta"), nn.Linear(width, height, bias=False)
    values = random(rows, columns, 0).to(device)
    layer.weight = nn.Parameter(values, requires_grad=False)
    whole.weight = nn.Parameter(behind_zeros(values, height, width), requires_grad=False)
    inputs, gradients = random(ROWS, columns, 1), random(ROWS, rows, 2)
    found = both_products(start(recipe, device).replace(layer), inputs, gradients)
    expected = both_products(
        start(recipe, device).replace(whole), behind_zeros(inputs, ROWS, width), behind_zeros(gradients, ROWS, height)
    )
    assert torch.equal(found[0], expected[0][:, :rows])
    assert torch.equal(found[1], expected[1][:, :columns])
    assert not expected[0][:, rows:].any()


@pytest.mark.parametrize("storage", STORED)
@pytest.mark.parametrize(("columns", "rows"), [(40, 24), (48, 24), (40, 32), (17, 1)])
def test_fp8_products_on_tensor_cores_take_any_width(
    storage: WeightStorage, columns: int, rows: int, device: torch.device
) -> None:
    recipe = replace(FP8, weight_storage=storage)
    layer = nn.Linear(columns, rows, bias=False, device="meta")
    layer.weight = nn.Parameter(random(rows, columns, 0).to(device), requires_grad=False)
    inputs, gradients = random(ROWS + 1, columns, 1), random(ROWS + 1, rows, 2)
    sessions = [start(recipe, device, engine=engine) for engine in ("torch", "emulated")]
    found, expected = (both_products(session.replace(layer), inputs, gradients) for session in sessions)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=2.0**-7, atol=float(theirs.abs().max()) * 2.0**-10)


def behind_zeros(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """Write a matrix into a larger one of zeros."""
    larger = matrix.new_zeros(rows, columns)
    larger[: matrix.shape[0], : matrix.shape[1]] = matrix
    return larger


@pytest.mark.parametrize("storage", [WeightStorage.FP8_128X128, WeightStorage.NVFP4])
def test_bf16_products_use_the_dequantized_weight_in_both_passes(storage: WeightStorage, device: torch.device) -> None:
    recipe = Recipe(name="stored", title="", weight_storage=storage, compute=ComputePrecision.BF16)
    layer = make_linear(device)
    stored = freeze(layer.weight, storage).dequantize().double().cpu().numpy()
    inputs, gradients = random(ROWS, INPUTS, 1), random(ROWS, OUTPUTS, 2)
    outputs, input_gradients = both_products(start(recipe, device).replace(layer), inputs, gradients)
    accumulation = ACCUMULATION[device.type]
    assert_rounded_once(outputs, inputs.double().numpy(), stored.T, accumulation=accumulation)
    assert_rounded_once(input_gradients, gradients.double().numpy(), stored, accumulation=accumulation)


@LOW_PRECISION
def test_layers_that_share_an_input_compute_what_they_compute_alone(
    recipe: Recipe, engine: str, device: torch.device
) -> None:
    session = start(recipe, device, engine=engine, layers=2)
    first, second = session.replace(make_linear(device, 0)), session.replace(make_linear(device, 1))
    inputs = random(ROWS, INPUTS, 3).to(device)
    shared = first(inputs), second(inputs)
    assert torch.equal(shared[0], first(inputs.clone()))
    assert torch.equal(shared[1], second(inputs.clone()))


@LOW_PRECISION
def test_an_input_changed_in_place_is_quantized_again(recipe: Recipe, engine: str, device: torch.device) -> None:
    layer = start(recipe, device, engine=engine).replace(make_linear(device))
    inputs = random(ROWS, INPUTS, 3).to(device)
    before = layer(inputs)
    inputs.mul_(-2.0)
    after = layer(inputs)
    assert torch.equal(after, layer(inputs.clone()))
    assert not torch.equal(after, before)


@LOW_PRECISION
def test_inference_mode_computes_the_same(recipe: Recipe, engine: str, device: torch.device) -> None:
    layer = start(recipe, device, engine=engine).replace(make_linear(device)).eval()
    inputs = random(ROWS, INPUTS, 3).to(device)
    expected = layer(inputs)
    with torch.inference_mode():
        hidden = inputs * 1
        assert torch.equal(layer(hidden), expected)
        hidden.zero_()
        assert not layer(hidden).any()


@LOW_PRECISION
def test_leading_dimensions_and_bias_are_those_of_a_linear_layer(
    recipe: Recipe, engine: str, device: torch.device
) -> None:
    layer = make_linear(device)
    layer.bias = nn.Parameter(random(1, OUTPUTS, 4).view(-1).to(device), requires_grad=False)
    quantized = start(recipe, device, engine=engine).replace(layer)
    inputs = random(6, INPUTS, 5).view(2, 3, INPUTS).to(device)
    without_bias = start(recipe, device, engine=engine).replace(make_linear(device))(inputs)
    assert without_bias.shape == (2, 3, OUTPUTS)
    assert torch.equal(quantized(inputs), without_bias + layer.bias)


def test_stochastic_rounding_of_gradients_repeats_with_the_seed_and_differs_between_steps(device: torch.device) -> None:
    inputs, gradients = random(ROWS, INPUTS, 1), random(ROWS, OUTPUTS, 2)
    runs = []
    for _ in range(2):
        layer = start(FP4, device).replace(make_linear(device))
        runs.append([both_products(layer, inputs, gradients)[1] for _ in range(2)])
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[0][1])
