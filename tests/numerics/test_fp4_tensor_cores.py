"""NVFP4 through torch's GEMM for FP4 tensor cores: the layout of its operands, and what a layer makes of them.

No GPU has run it yet. A stand-in reads the operands byte by byte and multiplies what they say.
"""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from fouroversix.quantize.utils import to_blocked
from stand_ins import fp4_tensor_cores
from torch import Tensor, nn

from surogate_bench.recipes import Recipe, WeightStorage, recipe_by_name
from surogate_bench_quantization import oracle
from surogate_bench_quantization.engines.nvfp4 import tensor_cores as torch_nvfp4
from surogate_bench_quantization.engines.nvfp4.emulated import EmulatedNVFP4Products
from surogate_bench_quantization.engines.nvfp4.session import NVFP4Session
from surogate_bench_quantization.engines.nvfp4.tensor_cores import SwizzledOperand, TensorCoreNVFP4Products
from surogate_bench_quantization.formats.nvfp4 import quantize_rows, quantize_squares
from surogate_bench_quantization.formats.nvfp4_swizzled import swizzle, swizzled, transposed

CPU = torch.device("cpu")
FP4 = recipe_by_name("fp4")
Profile = Literal["paper", "surogate"]


def random(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, columns, generator=generator) * torch.randn(rows, 1, generator=generator).exp()).to(
        torch.bfloat16
    )


def random_bytes(rows: int, columns: int) -> Tensor:
    return torch.randint(0, 127, (rows, columns), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def layers(recipe: Recipe, inputs: int, outputs: int) -> tuple[nn.Linear, nn.Linear]:
    """The same layer on tensor cores and emulated, with noise of the same seed."""
    linear = nn.Linear(inputs, outputs, bias=False, device="meta")
    linear.weight = nn.Parameter(random(outputs, inputs, 0) * 0.02, requires_grad=False)
    return (
        NVFP4Session(recipe, TensorCoreNVFP4Products, device=CPU, seed=7).replace(linear),
        NVFP4Session(recipe, EmulatedNVFP4Products, device=CPU, seed=7).replace(linear),
    )


def both_products(layer: nn.Linear, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    inputs = inputs.clone().requires_grad_()
    outputs = layer(inputs)
    (input_gradients,) = torch.autograd.grad(outputs, inputs, gradients)
    return outputs.detach(), input_gradients


@pytest.fixture
def on_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_nvfp4, "scaled_mm", fp4_tensor_cores.scaled_mm)


def test_the_scale_of_each_block_is_where_cublas_reads_it() -> None:
    """Offsets of the documentation, written out: rows 0 to 31 of a tile are 16 bytes apart, rows 32 apart 4 bytes."""
    scales = random_bytes(256, 8)
    stored = swizzle(scales)
    for row, block, offset in [
        (0, 0, 0),
        (0, 3, 3),
        (1, 0, 16),
        (31, 0, 496),
        (32, 0, 4),
        (33, 2, 22),
        (96, 0, 12),
        (127, 3, 511),
        (0, 4, 512),
        (0, 7, 515),
        (128, 0, 1024),
        (255, 7, 2047),
    ]:
        assert stored[offset] == scales[row, block], (row, block)


@pytest.mark.parametrize(("rows", "blocks"), [(128, 4), (256, 12), (1, 1), (96, 4), (130, 5), (16, 3), (384, 6)])
def test_scales_survive_the_tiles_and_what_is_beyond_the_matrix_is_zero(rows: int, blocks: int) -> None:
    scales = random_bytes(rows, blocks) + 1
    stored = swizzle(scales)
    expected = scales.numpy()
    assert stored.shape == (-(-rows // 128) * -(-blocks // 4) * 512,)
    assert (fp4_tensor_cores.unswizzled(stored.numpy(), rows, blocks) == expected).all()
    assert (oracle.from_tiles(stored.numpy(), rows, blocks) == expected).all()
    assert int(stored.count_nonzero()) == rows * blocks


def test_the_tiles_are_those_of_the_published_implementation_of_four_over_six() -> None:
    scales = random_bytes(384, 12)
    assert torch.equal(swizzle(scales), to_blocked(scales))


@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (16, 48), (304, 32)])
@pytest.mark.parametrize("squares", [False, True], ids=["rows", "squares"])
def test_operands_stand_for_what_the_emulation_multiplies(shape: tuple[int, int], *, squares: bool) -> None:
    rows, columns = shape
    matrix = random(rows, columns, 4)
    matrix[0, :16] = 0
    quantized = (quantize_squares if squares else quantize_rows)(matrix, four_over_six=True)
    packed = swizzled(quantized)
    values = fp4_tensor_cores.values(
        packed.codes.view(torch.float4_e2m1fn_x2), packed.block_scales.view(torch.float8_e4m3fn)
    )
    assert torch.equal(values[:rows, :columns], quantized.products)
    assert not values[:, columns:].any()
    assert packed.tensor_scale == quantized.tensor_scale


def test_the_transpose_of_square_blocks_is_the_quantized_transpose() -> None:
    matrix = random(96, 160, 5)
    expected = quantize_squares(matrix.t().contiguous(), four_over_six=True)
    found = transposed(quantize_squares(matrix, four_over_six=True))
    assert torch.equal(found.products, expected.products)
    assert torch.equal(found.block_scales, expected.block_scales)
    assert found.tensor_scale == expected.tensor_scale


@pytest.mark.usefixtures("on_tensor_cores")
@pytest.mark.parametrize("profile", ["paper", "surogate"])
@pytest.mark.parametrize("storage", [WeightStorage.BF16, WeightStorage.FP8_128X128, WeightStorage.NVFP4])
def test_both_products_are_bit_for_bit_the_emulated_ones_if_sums_are_formed_alike(
    storage: WeightStorage, profile: Profile
) -> None:
    recipe = replace(FP4, weight_storage=storage, fp4_profile=profile)
    on_cores, emulated = layers(recipe, 64, 160)
    inputs, gradients = random(96, 64, 1), random(96, 160, 2) * 1e-4
    for _ in range(2):  # other noise in the second pass
        found, expected = both_products(on_cores, inputs, gradients), both_products(emulated, inputs, gradients)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


@pytest.mark.usefixtures("on_tensor_cores")
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(7, 48, 80), (1, 16, 16), (50, 112, 16), (7, 40, 24)])
def test_widths_and_rows_that_need_padding_give_the_same_products(rows: int, inputs: int, outputs: int) -> None:
    on_cores, emulated = layers(FP4, inputs, outputs)
    x, g = random(rows, inputs, 1), random(rows, outputs, 2)
    for found, expected in zip(both_products(on_cores, x, g), both_products(emulated, x, g), strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=2.0**-7, atol=1e-6)


@pytest.mark.usefixtures("on_tensor_cores")
def test_layers_that_share_an_input_quantize_it_once_and_leading_dimensions_are_kept() -> None:
    on_cores, emulated = layers(FP4, 64, 160)
    inputs = random(6, 64, 3).view(2, 3, 64)
    assert torch.equal(on_cores(inputs), emulated(inputs))
    inputs.mul_(-2.0)
    assert torch.equal(on_cores(inputs), emulated(inputs))


def test_the_two_operands_take_the_bytes_that_are_reported() -> None:
    on_cores, _ = layers(FP4, 256, 128)
    products = on_cores.products
    assert isinstance(products, TensorCoreNVFP4Products)
    weights = 256 * 128
    assert products.operand_nbytes == 2 * (weights // 2 + weights // 16) + 4  # both have the same tensor scale


def test_torch_accepts_shapes_and_types_of_the_call() -> None:
    """Without a GPU torch checks the call on its meta device, as it does when a graph is compiled."""
    operand = SwizzledOperand(quantize_rows(random(80, 64, 1), four_over_six=True)).to("meta")
    left = swizzled(quantize_rows(random(32, 64, 2), four_over_six=True))
    product = operand.multiply(type(left)(*(each.to("meta") for each in left)))
    assert product.shape == (32, 80)
    assert product.dtype == torch.bfloat16
