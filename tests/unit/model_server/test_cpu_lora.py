"""The vLLM plug-in against vLLM's own LoRA functions, on random batches."""

import logging
import warnings
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from surogate_bench.contract import CPU_LORA_MARK_VARIABLE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM and what it imports warn about each other
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
    from vllm.platforms import current_platform
    from vllm.platforms.cpu import CpuPlatform

    from surogate_bench_model_server.cpu_lora import PLUGIN, compatibility, register
    from surogate_bench_model_server.cpu_lora.wrapper import GroupedPunicaWrapper, combine_slices, group_tokens

SLOTS, PADDED_RANK, INPUTS = 4, 64, 96
FUSED = (128, 64, 64)


@dataclass
class Layer:
    """Stacked LoRA matrices as vLLM lays them out, zero where no adapter is loaded."""

    dtype: torch.dtype = torch.bfloat16
    outputs: tuple[int, ...] = FUSED
    a: tuple[torch.Tensor, ...] = field(init=False)
    b: tuple[torch.Tensor, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.a = tuple(torch.zeros(SLOTS, 1, PADDED_RANK, INPUTS, dtype=self.dtype) for _ in self.outputs)
        self.b = tuple(torch.zeros(SLOTS, 1, size, PADDED_RANK, dtype=self.dtype) for size in self.outputs)

    def load(self, slot: int, rank: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(1000 * slot + seed)
        for a, b in zip(self.a, self.b, strict=True):
            a[slot] = 0
            b[slot] = 0
            a[slot, 0, :rank] = torch.randn(rank, INPUTS, generator=generator) / INPUTS**0.5
            b[slot, 0, :, :rank] = torch.randn(b.shape[2], rank, generator=generator) / rank**0.5


def wrapper_of(kind: type[PunicaWrapperCPU], slots: list[int]) -> Any:
    wrapper = kind(1024, 64, "cpu", lora_config=None)
    prompts = tuple(slot + 1 if slot >= 0 else 0 for slot in slots)
    mapping = SimpleNamespace(index_mapping=prompts, prompt_mapping=prompts, is_prefill=True, type=None)
    wrapper.update_metadata(mapping, [1, 2, 3, 4], SLOTS, 1000)
    return wrapper


def outputs_of(kind: type[PunicaWrapperCPU], layer: Layer, slots: list[int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(len(slots), INPUTS, generator=generator).to(layer.dtype)
    y = torch.randn(len(slots), sum(layer.outputs), generator=generator).to(layer.dtype)
    wrapper_of(kind, slots).add_lora_linear(y, x, layer.a, layer.b, 1.0, layer.outputs)
    return y


def loaded_layer(*ranks: int, dtype: torch.dtype = torch.bfloat16, outputs: tuple[int, ...] = FUSED) -> Layer:
    layer = Layer(dtype, outputs)
    for slot, rank in enumerate(ranks):
        layer.load(slot, rank)
    return layer


@pytest.mark.parametrize(
    "slots",
    [
        pytest.param([0] * 50, id="one adapter"),
        pytest.param([2], id="one token"),
        pytest.param([0, 1, 2] * 11, id="three adapters"),
        pytest.param([1, 1, 0, 0, 0, 2, 1], id="in runs"),
        pytest.param([-1, 0, -1, 2, 2, -1], id="some tokens without"),
        pytest.param([-1, -1, -1], id="none at all"),
    ],
)
@pytest.mark.parametrize("outputs", [(128,), (96, 96), FUSED], ids=["single", "gate and up", "q, k and v"])
def test_it_adds_what_vllm_adds(slots: list[int], outputs: tuple[int, ...]) -> None:
    layer = loaded_layer(16, 64, 8, outputs=outputs)  # the last slot is free: see the test on index -1
    ours, theirs = outputs_of(GroupedPunicaWrapper, layer, slots), outputs_of(PunicaWrapperCPU, layer, slots)
    assert_equal_up_to_summation_order(ours, theirs)


def test_float32_models_get_the_same_results() -> None:
    layer = loaded_layer(16, 8, dtype=torch.float32)
    slots = [0, 1, -1, 0]
    ours, theirs = outputs_of(GroupedPunicaWrapper, layer, slots), outputs_of(PunicaWrapperCPU, layer, slots)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_token_without_adapter_is_untouched_even_when_every_slot_is_taken() -> None:
    layer = loaded_layer(8, 8, 8, 8)
    untouched = outputs_of(GroupedPunicaWrapper, layer, [-1, -1])
    assert torch.equal(outputs_of(GroupedPunicaWrapper, layer, [-1, 0])[0], untouched[0])


def test_vllm_alone_gives_such_a_token_the_adapter_in_the_last_slot() -> None:
    """When this fails, vLLM has mended it and the remark in the wrapper can go."""
    layer = loaded_layer(8, 8, 8, 8)
    untouched = outputs_of(PunicaWrapperCPU, layer, [-1, -1])
    assert not torch.equal(outputs_of(PunicaWrapperCPU, layer, [-1, 0])[0], untouched[0])


def test_an_adapter_that_replaces_another_in_its_slot_is_noticed() -> None:
    layer = loaded_layer(16)
    wrapper = wrapper_of(GroupedPunicaWrapper, [0, 0])
    x = torch.randn(2, INPUTS, generator=torch.Generator().manual_seed(3)).bfloat16()
    first, second = torch.zeros(2, sum(FUSED)).bfloat16(), torch.zeros(2, sum(FUSED)).bfloat16()
    wrapper.add_lora_linear(first, x, layer.a, layer.b, 1.0, FUSED)
    with torch.inference_mode():  # as when vLLM activates an adapter for a batch
        layer.load(0, rank=32, seed=1)
    wrapper.add_lora_linear(second, x, layer.a, layer.b, 1.0, FUSED)
    expected = torch.zeros(2, sum(FUSED)).bfloat16()
    wrapper_of(PunicaWrapperCPU, [0, 0]).add_lora_linear(expected, x, layer.a, layer.b, 1.0, FUSED)
    assert not torch.equal(first, second)
    assert_equal_up_to_summation_order(second, expected)


def test_a_slice_that_the_adapter_leaves_alone_stays_as_it_is() -> None:
    layer = loaded_layer(16)
    layer.b[1].zero_()
    before = outputs_of(GroupedPunicaWrapper, Layer(), [0])
    after = outputs_of(GroupedPunicaWrapper, layer, [0])
    bounds = [0, *accumulate(FUSED)]
    unchanged = [torch.equal(before[:, i:j], after[:, i:j]) for i, j in pairwise(bounds)]
    assert unchanged == [False, True, False]


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_calls_of_another_kind_are_left_to_vllm(scale: float) -> None:
    layer = loaded_layer(16)
    x = torch.randn(2, INPUTS, generator=torch.Generator().manual_seed(3)).bfloat16()
    results = []
    for kind in (GroupedPunicaWrapper, PunicaWrapperCPU):
        y = torch.zeros(2, sum(FUSED)).bfloat16()
        buffer = tuple(torch.zeros(2, PADDED_RANK) for _ in FUSED)
        wrapper_of(kind, [0, 0]).add_lora_linear(y, x, layer.a, layer.b, scale, FUSED, buffer=buffer)
        results.append(y)
    assert torch.equal(*results)


@pytest.mark.parametrize("slots", [[0, 0, 1], [1, -1, -1], [-1, -1, -1]])
@pytest.mark.parametrize("loaded", [True, False], ids=["adapters change it", "no adapter changes it"])
def test_embeddings_and_output_heads_get_what_vllm_gives_them(slots: list[int], loaded: bool) -> None:
    layer = Layer(outputs=(256,))
    results = []
    for kind in (GroupedPunicaWrapper, PunicaWrapperCPU):
        wrapper = wrapper_of(kind, slots)
        for load in [False, loaded]:  # the second time, what was found out the first time may not hold any more
            if load:
                layer.load(0, 16)
                layer.load(1, 8)
            x = torch.randn(len(slots), INPUTS, generator=torch.Generator().manual_seed(3)).bfloat16()
            embedded = torch.ones(len(slots), 256).bfloat16()
            wrapper.add_lora_embedding(embedded, x[:, :PADDED_RANK].contiguous(), layer.b[0], add_input=True)
            logits = torch.ones(len(slots), 256).bfloat16()
            wrapper.add_lora_logits(logits, x, layer.a[0], layer.b[0], 1.0)
        results.append((embedded, logits))
        layer = Layer(outputs=(256,))
    (our_embedded, our_logits), (embedded, logits) = results
    assert torch.equal(our_embedded, embedded)
    assert torch.equal(our_logits, logits)
    assert torch.equal(logits, torch.ones_like(logits)) == (not loaded or slots == [-1, -1, -1])


def test_padding_up_to_the_maximum_rank_is_not_computed() -> None:
    layer = loaded_layer(16)
    weights = combine_slices(tuple(a[0, 0] for a in layer.a), tuple(b[0, 0] for b in layer.b))
    assert weights is not None
    assert weights.a.shape == (3 * 16, INPUTS)
    assert weights.b.shape == (3 * 16, sum(FUSED))


def test_an_empty_slot_has_no_weights() -> None:
    layer = Layer()
    assert combine_slices(tuple(a[0, 0] for a in layer.a), tuple(b[0, 0] for b in layer.b)) is None


def test_tokens_are_grouped_by_slot() -> None:
    groups = group_tokens(torch.tensor([2, -1, 0, 2]))
    assert [(group.slot, None if group.rows is None else group.rows.tolist()) for group in groups] == [
        (0, [2]),
        (2, [0, 3]),
    ]
    assert group_tokens(torch.tensor([1, 1]))[0].rows is None
    assert group_tokens(torch.tensor([-1, -1])) == ()


@pytest.fixture
def stock_platform(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Undo what a test does to vLLM's CPU platform."""
    if not current_platform.is_cpu():
        pytest.skip("this vLLM is not built for CPU")
    monkeypatch.setattr(CpuPlatform, "get_punica_wrapper", CpuPlatform.__dict__["get_punica_wrapper"])
    return monkeypatch


@pytest.mark.usefixtures("stock_platform")
def test_registering_makes_vllm_choose_our_class_however_often() -> None:
    assert CpuPlatform.get_punica_wrapper() == compatibility.STOCK_WRAPPER
    for _ in range(2):
        register()
        assert CpuPlatform.get_punica_wrapper() == compatibility.OUR_WRAPPER
    module, _, name = compatibility.OUR_WRAPPER.rpartition(".")
    assert (GroupedPunicaWrapper.__module__, GroupedPunicaWrapper.__name__) == (module, name)


def test_the_entry_point_of_the_package_is_register() -> None:
    from importlib.metadata import entry_points

    (point,) = entry_points(group="vllm.general_plugins", name=PLUGIN)
    assert point.load() is register


def test_vllms_use_of_our_class_leaves_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CPU_LORA_MARK_VARIABLE, str(tmp_path / "mark"))
    wrapper_of(PunicaWrapperCPU, [0])
    assert not (tmp_path / "mark").exists()
    wrapper_of(GroupedPunicaWrapper, [0])
    assert (tmp_path / "mark").exists()


def test_another_version_of_vllm_makes_it_step_aside(
    stock_platform: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stock_platform.setattr(compatibility, "version", lambda _distribution: "0.33.1")
    assert_steps_aside(caplog, "proven with vLLM <0.33,>=0.32.0, this is 0.33.1")


def test_a_changed_signature_makes_it_step_aside(
    stock_platform: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stock_platform.setattr(PunicaWrapperCPU, "add_lora_linear", lambda self, y: (self, y))
    assert_steps_aside(caplog, "PunicaWrapperCPU.add_lora_linear takes self, y; expected self, y, x, lora_a_stacked")


def test_another_implementation_is_not_pushed_aside(
    stock_platform: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stock_platform.setattr(CpuPlatform, "get_punica_wrapper", classmethod(lambda _platform: "somebody.else.Wrapper"))
    assert_steps_aside(caplog, "the CPU platform already uses somebody.else.Wrapper")


def assert_steps_aside(caplog: pytest.LogCaptureFixture, reason: str) -> None:
    chosen = CpuPlatform.get_punica_wrapper()
    vllm_logger = logging.getLogger("vllm")
    caplog.set_level(logging.WARNING, logger="vllm")  # whatever level vLLM was first imported with
    vllm_logger.addHandler(caplog.handler)
    try:
        register()
    finally:
        vllm_logger.removeHandler(caplog.handler)
    assert CpuPlatform.get_punica_wrapper() == chosen
    assert reason in caplog.text


def assert_equal_up_to_summation_order(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Nearly all elements are equal, and none is off by more than one rounding of bfloat16."""
    assert (ours != theirs).float().mean() < 0.001
    torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=2**-7)
