"""Every storage format takes exactly the bytes it should, and gives back what it should."""

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import Tensor, nn

from surogate_bench.recipes import WeightStorage
from surogate_bench_quantization.formats.nvfp4 import quantize_rows
from surogate_bench_quantization.storage import freeze
from surogate_bench_quantization.storage.nf4 import nf4_dequantized, nf4_linear, nf4_nbytes

QWEN3_0_6B_BLOCKS = 28
QWEN3_0_6B = {(2048, 1024): 1, (1024, 1024): 2, (1024, 2048): 1, (3072, 1024): 2, (1024, 3072): 1}
"""(out_features, in_features) of the linear layers of one block, and how many there are: q; k, v; o; gate, up; down."""


def weight(shape: tuple[int, int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(torch.bfloat16)


def linear(shape: tuple[int, int]) -> nn.Linear:
    layer = nn.Linear(shape[1], shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight(shape), requires_grad=False)
    return layer


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        (WeightStorage.BF16, 880_803_840),
        (WeightStorage.FP8_128X128, 440_509_440),
        (WeightStorage.NVFP4, 247_726_864),
    ],
)
def test_qwen3_0_6b_takes_the_published_bytes(storage: WeightStorage, expected: int) -> None:
    total = sum(freeze(weight(shape), storage).nbytes * count for shape, count in QWEN3_0_6B.items())
    assert total * QWEN3_0_6B_BLOCKS == expected


def test_qwen3_0_6b_in_nf4_takes_the_published_bytes_and_its_tables() -> None:
    total = sum(nf4_nbytes(nf4_linear(linear(shape))) * count for shape, count in QWEN3_0_6B.items())
    assert total * QWEN3_0_6B_BLOCKS == 227_190_544 + 213_248


@pytest.mark.parametrize("storage", [WeightStorage.FP8_128X128, WeightStorage.NVFP4])
def test_quantized_storage_holds_no_float8(storage: WeightStorage) -> None:
    dtypes = {buffer.dtype for buffer in freeze(weight((64, 64)), storage).buffers()}
    assert dtypes == {torch.uint8, torch.float32}


def test_ragged_tiles_take_a_scale_each() -> None:
    assert freeze(weight((130, 300)), WeightStorage.FP8_128X128).nbytes == 130 * 300 + 4 * 2 * 3


def test_bf16_storage_gives_back_the_weight_itself() -> None:
    original = weight((48, 32))
    assert torch.equal(freeze(original, WeightStorage.BF16).dequantize(), original)


def test_nvfp4_storage_rounds_once_to_bf16() -> None:
    original = weight((48, 32))
    quantized = quantize_rows(original, four_over_six=False)
    exact = quantized.products.double() * quantized.tensor_scale.double()
    dequantized = freeze(original, WeightStorage.NVFP4).dequantize()
    assert dequantized.dtype == torch.bfloat16
    assert torch.equal(dequantized, exact.to(torch.bfloat16))


@pytest.mark.parametrize(("storage", "error"), [(WeightStorage.FP8_128X128, 0.04), (WeightStorage.NVFP4, 0.11)])
def test_the_relative_error_of_a_gaussian_weight_is_that_of_its_format(storage: WeightStorage, error: float) -> None:
    original = weight((256, 256))
    difference = freeze(original, storage).dequantize().float() - original.float()
    assert 0.5 * error < float(difference.norm() / original.float().norm()) < error


@pytest.mark.parametrize("columns", [40, 17, 1])
def test_nvfp4_storage_fills_up_the_last_block_of_a_row_with_zeros(columns: int) -> None:
    original = weight((48, columns))
    by_hand = torch.zeros(48, -(-columns // 16) * 16, dtype=torch.bfloat16)
    by_hand[:, :columns] = original
    stored, whole = freeze(original, WeightStorage.NVFP4), freeze(by_hand, WeightStorage.NVFP4)
    assert torch.equal(stored.dequantize(), whole.dequantize()[:, :columns])
    assert stored.dequantize().is_contiguous()
    assert stored.nbytes == whole.nbytes == by_hand.numel() * 9 // 16 + 4


@pytest.mark.parametrize("shape", [(64, 128), (48, 40), (7, 13), (1, 3)])  # blocks of 64 run over rows
def test_nf4_weights_are_those_of_bitsandbytes(shape: tuple[int, int]) -> None:
    layer = nf4_linear(linear(shape))
    packed, state = bnb.quantize_4bit(weight(shape), blocksize=64, compress_statistics=True, quant_type="nf4")
    assert torch.equal(nf4_dequantized(weight(shape)), bnb.dequantize_4bit(packed, state))
    assert torch.equal(layer.weight.data, packed)
    assert layer.weight.quant_state.nested
    assert torch.equal(layer.weight.quant_state.absmax, state.absmax)
    assert layer.compute_dtype == torch.bfloat16


def test_validation_does_not_change_the_training_of_nf4() -> None:
    layer = nf4_linear(linear((64, 128)))
    inputs = torch.randn(8, 128, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16).requires_grad_()
    bytes_before = layer.weight.data.clone()
    gradients = []
    for validate in (False, True):
        if validate:
            layer.eval()
            with torch.no_grad():
                layer(inputs.detach())
        layer.train()
        (gradient,) = torch.autograd.grad(layer(inputs).float().square().sum(), inputs)
        gradients.append(gradient)
    assert torch.equal(*gradients)
    assert gradients[0].any()
    assert torch.equal(layer.weight.data, bytes_before)
