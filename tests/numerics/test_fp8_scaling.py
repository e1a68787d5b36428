"""Scales of FP8: a tensor's own, those of delayed scaling, and those of 128x128 tiles."""

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from surogate_bench_quantization.formats.delayed_scaling import DelayedScaling
from surogate_bench_quantization.formats.elements import E4M3, E5M2
from surogate_bench_quantization.formats.fp8 import (
    amax,
    dequantize_tiles,
    quantize_current,
    quantize_scaled,
    quantize_tiles,
)
from surogate_bench_quantization.fusion import SLAB

FP32_MAX = torch.finfo(torch.float32).max
CPU = torch.device("cpu")


def delayed(history_length: int, *, slots: int = 1, margin: int = 0) -> DelayedScaling:
    return DelayedScaling(slots=slots, history_length=history_length, margin=margin, device=CPU)


def run_step(scaling: DelayedScaling, *amaxes: float) -> float:
    for value in amaxes:
        scaling.record(0, torch.tensor(value))
    scaling.update()
    return scaling.scale(0)


def divide(target: float, largest: float) -> float:
    return float(np.float32(target) / np.float32(largest))


def test_current_scaling_maps_the_largest_value_to_the_largest_number() -> None:
    values = torch.tensor([[0.1, -0.7, 0.3]], dtype=torch.bfloat16)
    for element in (E4M3, E5M2):
        codes, scale = quantize_current(values, element)
        assert float(scale) == divide(element.max_value, float(values.abs().max()))
        assert codes[0, 1] == -element.max_value


def test_current_scaling_of_a_zero_tensor_is_finite() -> None:
    codes, scale = quantize_current(torch.zeros(2, 3, dtype=torch.bfloat16), E4M3)
    assert torch.equal(codes, torch.zeros_like(codes))
    assert float(scale) == divide(448.0, 1e-10)


def test_codes_equal_those_of_ml_dtypes_under_the_same_scale() -> None:
    values = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert values.numel() > SLAB  # more than one piece
    codes = quantize_scaled(values, 317.5, E4M3)
    scaled = (values.float() * 317.5).clamp(-448, 448).numpy()
    expected = scaled.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert torch.equal(codes.float(), torch.from_numpy(expected))


def test_amax_is_nan_if_any_value_is() -> None:
    assert amax(torch.tensor([1.0, -3.0])) == 3.0
    assert amax(torch.tensor([1.0, torch.nan, -3.0])).isnan()


def test_the_scale_starts_at_one_and_moves_only_on_update() -> None:
    scaling = delayed(4)
    assert scaling.scale(0) == 1.0
    scaling.record(0, torch.tensor(7.0))
    assert scaling.scale(0) == 1.0
    scaling.update()
    assert scaling.scale(0) == divide(448.0, 7.0)


def test_amaxes_of_micro_batches_count_by_their_maximum() -> None:
    assert run_step(delayed(4), 2.0, 9.0, 5.0) == divide(448.0, 9.0)


def test_a_short_history_forgets_after_exactly_its_length() -> None:
    scaling = delayed(3)
    seen = [run_step(scaling, value) for value in (8.0, 2.0, 1.0, 1.0, 1.0, 1.0)]
    largest = (8.0, 8.0, 8.0, 2.0, 1.0, 1.0)
    assert seen == [divide(448.0, value) for value in largest]


def test_the_scale_is_kept_while_the_history_holds_only_zeros() -> None:
    scaling = delayed(2)
    before = run_step(scaling, 3.0)
    assert run_step(scaling, 0.0) == before  # 3.0 is still in the history
    assert run_step(scaling, 0.0) == before  # nothing but zeros
    assert run_step(scaling, 6.0) == divide(448.0, 6.0)


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_the_scale_is_kept_while_the_history_holds_what_is_not_finite(bad: float) -> None:
    scaling = delayed(2)
    before = run_step(scaling, 3.0)
    assert run_step(scaling, bad) == before
    assert run_step(scaling, 6.0) == before  # still in the history of two
    assert run_step(scaling, 6.0) == divide(448.0, 6.0)


def test_a_margin_keeps_powers_of_two_free() -> None:
    assert run_step(delayed(1, margin=3), 7.0) == divide(448.0 / 8, 7.0)


def test_a_scale_that_overflows_is_the_largest_fp32_number() -> None:
    assert run_step(delayed(1), 1e-38) == FP32_MAX


def test_slots_are_independent() -> None:
    scaling = delayed(2, slots=2)
    scaling.record(1, torch.tensor(4.0))
    scaling.update()
    assert [scaling.scale(0), scaling.scale(1)] == [1.0, 112.0]


def test_a_restored_history_continues_as_if_never_interrupted() -> None:
    amaxes = (5.0, 9.0, 1.0, 1.0, 1.0, 3.0)
    whole, first, second = delayed(3), delayed(3), delayed(3)
    expected = [run_step(whole, value) for value in amaxes]
    for value in amaxes[:2]:
        run_step(first, value)
    first.record(0, torch.tensor(amaxes[2]))  # interrupted between micro-batches
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    assert second.scale(0) == first.scale(0)
    continued = [run_step(second)] + [run_step(second, value) for value in amaxes[3:]]
    assert continued == expected[2:]


def tiles_by_loop(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes as E4M3 bytes, and dequantized values, tile by tile."""
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    values = torch.empty(weight.shape, dtype=torch.bfloat16)
    for row in range(0, weight.shape[0], 128):
        for column in range(0, weight.shape[1], 128):
            tile = np.s_[row : row + 128, column : column + 128]
            block = weight[tile].float().numpy()
            scale = np.float32(448) / max(np.abs(block).max(), np.float32(1e-10))
            narrow = np.clip(block * scale, -448, 448).astype(ml_dtypes.float8_e4m3fn)
            codes[tile] = torch.from_numpy(narrow.view(np.uint8))
            values[tile] = torch.from_numpy(narrow.astype(np.float32) * (np.float32(1) / scale)).to(torch.bfloat16)
    return codes, values


@pytest.mark.parametrize("shape", [(128, 256), (384, 128), (130, 127), (1, 300), (64, 64)])
def test_tiles_equal_a_loop_over_tiles(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(shape, generator=generator) * torch.randn(shape[0], 1, generator=generator).exp()
    weight = weight.to(torch.bfloat16)
    codes, inverse_scales = quantize_tiles(weight)
    expected_codes, expected_values = tiles_by_loop(weight)
    assert inverse_scales.shape == (-(-shape[0] // 128), -(-shape[1] // 128))
    assert torch.equal(codes, expected_codes)
    assert torch.equal(dequantize_tiles(codes, inverse_scales), expected_values)


def test_a_tile_of_zeros_dequantizes_to_zeros() -> None:
    weight = torch.ones(256, 128, dtype=torch.bfloat16)
    weight[128:] = 0
    values = dequantize_tiles(*quantize_tiles(weight))
    assert torch.equal(values[128:], torch.zeros_like(values[128:]))
    assert torch.equal(values[:128], weight[:128])
