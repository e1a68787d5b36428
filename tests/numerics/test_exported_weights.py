"""What is exported, read by the code of the formats themselves: compressed-tensors and bitsandbytes."""

import math
import warnings

import pytest
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from torch import Tensor, nn

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage, recipe_by_name
from surogate_bench.stages.exports import ExportFormat
from surogate_bench_quantization.engines import select_engine
from surogate_bench_quantization.export import ExportedLayers, checkpoint_format
from surogate_bench_quantization.export.nvfp4 import divisor
from surogate_bench_quantization.stored_layers import dequantized_weight

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torch.compile's, of what torch itself imports
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

STORED = ("qbnb", "qfp8-bf16", "qfp8-fp8-hybrid", "qfp4")
UNQUANTIZED = ("lm_head", "model.layers.1")


def linear(seed: int, *, rows: int = 256, columns: int = 384, size: float = 0.02) -> nn.Linear:
    layer = nn.Linear(columns, rows, bias=False, device="meta")
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).mul_(size)
    layer.weight = nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
    return layer


def stored(recipe: Recipe, *layers: nn.Linear) -> dict[str, nn.Linear]:
    """Store layers as a trainer does."""
    cpu = torch.device("cpu")
    session = select_engine(recipe, cpu).start(recipe, layers=len(layers), device=cpu, seed=0)
    return {f"layer{index}": session.replace(layer) for index, layer in enumerate(layers)}


def exported(name: str, *layers: nn.Linear) -> tuple[dict[str, nn.Linear], ExportedLayers]:
    recipe = recipe_by_name(name)
    kept = stored(recipe, *layers)
    return kept, checkpoint_format(recipe, ExportFormat.NATIVE).convert(kept)


def of_layer(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def scheme_of(name: str) -> tuple[str, QuantizationScheme]:
    section = checkpoint_format(recipe_by_name(name), ExportFormat.NATIVE).quantization_config(UNQUANTIZED)
    config = QuantizationConfig.model_validate(section)
    return str(config.format), config.config_groups["group_0"]


def decompressed(name: str, tensors: dict[str, Tensor]) -> Tensor:
    compression, scheme = scheme_of(name)
    compressor = BaseCompressor.get_value_from_registry(compression)
    weight: Tensor = compressor.decompress(tensors, scheme)["weight"]
    return weight


@pytest.mark.parametrize("name", ["qfp8-bf16", "qfp8-fp8-hybrid"])
def test_fp8_blocks_read_by_compressed_tensors_are_the_stored_weight_bit_for_bit(name: str) -> None:
    kept, export = exported(name, linear(0))
    weight = decompressed(name, of_layer(export.tensors, "layer0"))
    assert weight.dtype == torch.float32
    assert torch.equal(weight.to(torch.bfloat16), dequantized_weight(kept["layer0"]))
    assert not export.relative_errors


def test_nvfp4_codes_and_scales_read_by_compressed_tensors_are_the_stored_values() -> None:
    kept, export = exported("qfp4", linear(0))
    tensors = of_layer(export.tensors, "layer0")
    elements = unpack_fp4_from_uint8(tensors["weight_packed"], 256, 384, dtype=torch.float64)
    scales = tensors["weight_scale"].double().repeat_interleave(16, dim=1)
    exact = elements * scales / tensors["weight_global_scale"].double()
    ours = dequantized_weight(kept["layer0"])
    assert torch.allclose(
        exact, (elements * scales) * kept["layer0"].storage.tensor_scale.double(), rtol=2**-23, atol=0
    )
    assert (exact.to(torch.bfloat16) == ours).double().mean() > 0.9999
    assert not export.relative_errors


def test_nvfp4_decompressed_in_bf16_differs_by_that_rounding_alone() -> None:
    """compressed-tensors rounds block scale by divisor to bf16, and then the product."""
    kept, export = exported("qfp4", linear(0))
    weight = decompressed("qfp4", of_layer(export.tensors, "layer0")).double()
    ours = dequantized_weight(kept["layer0"]).double()
    assert ((weight - ours).abs() <= 2**-7 * ours.abs()).all()


def test_nf4_read_by_bitsandbytes_is_the_stored_weight_bit_for_bit() -> None:
    kept, export = exported("qbnb", linear(0))
    tensors = of_layer(export.tensors, "layer0")
    state = QuantState.from_dict(
        {f"weight.{key.removeprefix('weight.')}": value for key, value in tensors.items() if key != "weight"},
        device=torch.device("cpu"),
    )
    weight = dequantize_4bit(tensors["weight"], state)
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, dequantized_weight(kept["layer0"]))


@pytest.mark.parametrize("name", STORED)
def test_the_bf16_export_is_what_training_multiplies_with(name: str) -> None:
    recipe = Recipe(
        name="stored", title="", weight_storage=recipe_by_name(name).weight_storage, compute=ComputePrecision.BF16
    )
    kept = stored(recipe, linear(0))
    weight = checkpoint_format(recipe, ExportFormat.BF16).convert(kept).tensors["layer0.weight"]
    one_hot = torch.eye(384, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(kept["layer0"](one_hot).T, weight)


def test_projections_that_vllm_multiplies_as_one_get_the_largest_of_their_tensor_scales() -> None:
    kept, export = exported("qfp4", linear(0), linear(1, rows=128, size=0.013), linear(2, rows=128, size=0.01))
    scales = [kept[f"layer{index}"].storage.tensor_scale for index in range(3)]
    written = [of_layer(export.tensors, f"layer{index}")["weight_global_scale"] for index in range(3)]
    assert scales[0] > scales[1] > scales[2]
    assert all(torch.equal(each, written[0]) for each in written)
    assert math.isclose(float(1 / written[0]), float(scales[0]), rel_tol=2**-23)
    first = of_layer(export.tensors, "layer0")
    assert torch.equal(first["weight_scale"].view(torch.uint8), kept["layer0"].storage.block_scales)
    assert all(
        torch.equal(of_layer(export.tensors, name)["weight_packed"], layer.storage.codes)
        for name, layer in kept.items()
    )


def test_the_stated_difference_is_that_of_the_values() -> None:
    kept, export = exported("qfp4", linear(0), linear(1, rows=128, size=0.013))
    tensors, storage = of_layer(export.tensors, "layer1"), kept["layer1"].storage
    elements = unpack_fp4_from_uint8(tensors["weight_packed"], 128, 384, dtype=torch.float64)

    def values(scales: Tensor, factor: Tensor) -> Tensor:
        return elements * scales.view(torch.float8_e4m3fn).double().repeat_interleave(16, dim=1) * factor.double()

    written = values(tensors["weight_scale"], tensors["weight_global_scale"].double().reciprocal())
    ours = values(storage.block_scales, storage.tensor_scale)
    assert export.relative_errors.keys() == {"layer1"}
    measured = float((written - ours).norm() / ours.norm())
    assert math.isclose(export.relative_errors["layer1"], measured, rel_tol=1e-5)
    assert measured < 0.04


def test_tensor_scales_whose_ratio_is_a_power_of_two_change_nothing() -> None:
    half = linear(0)
    half.weight.data.mul_(0.25)
    _, export = exported("qfp4", linear(0), half)
    assert not export.relative_errors


def test_a_weight_of_zeros_stays_one_beside_others() -> None:
    zeros = linear(0)
    zeros.weight.data.zero_()
    for layers in ((zeros,), (linear(1), zeros)):
        _, export = exported("qfp4", *layers)
        name = f"layer{len(layers) - 1}"
        assert not decompressed("qfp4", of_layer(export.tensors, name)).any()
        assert not export.relative_errors


def test_a_divisor_is_the_fp32_number_whose_reciprocal_comes_nearest_to_the_scale() -> None:
    scales = torch.rand(2000, generator=torch.Generator().manual_seed(0)).mul_(0.01).add_(1e-6)
    exact = 0
    for scale in scales:
        chosen = divisor(scale)
        bits = chosen.view(torch.int32) + torch.arange(-3, 4, dtype=torch.int32)
        nearest = (bits.view(torch.float32).reciprocal() - scale).abs().min()
        assert (chosen.reciprocal() - scale).abs() == nearest
        assert nearest <= torch.nextafter(scale, torch.tensor(1.0)) - scale
        exact += int(nearest == 0)
    assert exact > 0.5 * len(scales)


@pytest.mark.parametrize("name", ["qfp8-bf16", "qfp8-fp8-hybrid", "qfp4"])
def test_compressed_tensors_recognizes_the_format_that_the_configuration_names(name: str) -> None:
    compression, scheme = scheme_of(name)
    inferred = infer_module_format(nn.Linear, scheme).value
    assert inferred == compression or {inferred, compression} == {"naive-quantized", "float-quantized"}


def test_where_a_server_treats_inputs_otherwise_than_training_a_note_states_it() -> None:
    quantized = {name: scheme_of(name)[1].input_activations is not None for name in STORED[1:]}
    assert quantized == {"qfp8-bf16": True, "qfp8-fp8-hybrid": True, "qfp4": False}
    notes = {name: " ".join(checkpoint_format(recipe_by_name(name), ExportFormat.NATIVE).notes) for name in STORED}
    assert "inputs to E4M3, where training keeps them in bf16" in notes["qfp8-bf16"]
    assert "inputs to E4M3 with one scale per token" in notes["qfp8-fp8-hybrid"]
    assert "inputs in bf16, where training quantizes them to fp8-hybrid" in notes["qfp4"]
    assert "input" not in notes["qbnb"]


def test_every_storage_has_a_format() -> None:
    labels = {
        recipe_by_name(name).weight_storage: checkpoint_format(recipe_by_name(name), ExportFormat.NATIVE).label
        for name in ("bf16", "qbnb", "qfp8-bf16", "qfp4")
    }
    assert labels == {
        WeightStorage.BF16: None,
        WeightStorage.NF4: "bitsandbytes nf4",
        WeightStorage.FP8_128X128: "compressed-tensors float-quantized",
        WeightStorage.NVFP4: "compressed-tensors nvfp4-pack-quantized",
    }
