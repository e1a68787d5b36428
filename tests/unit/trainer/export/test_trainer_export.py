"""Exporting the base of a recipe: what is written, and what other software makes of it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny_models import TinyModel
from models.wide_model import save_wide_model
from safetensors.torch import load_file
from sweeps import small_sweep
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from surogate_bench.contract import EXPORT_FILE
from surogate_bench.errors import ConfigError
from surogate_bench.stages.exports import ExportFormat, ExportRecord
from surogate_bench.stages.requests import ExportRequest
from surogate_bench_quantization.export import checkpoint_format
from surogate_bench_quantization.stored_layers import dequantized_weight
from surogate_bench_trainer.export import export_stage
from surogate_bench_trainer.export.checkpoint import write_weights
from surogate_bench_trainer.export.layers import stored_layers
from surogate_bench_trainer.export.room import expected_bytes
from surogate_bench_trainer.export.source import Source, load_stored

QUANTIZED = ["qbnb", "qfp8-bf16", "qfp8-fp8-hybrid", "qfp4"]
SKIPPING = ["skipping-nf4", "skipping-nvfp4", "skipping-fp8-128x128"]
RECIPES: list[Any] = [
    *("bf16", "fp8", *QUANTIZED),
    *(
        {
            "name": name,
            "title": name,
            "weight_storage": name.removeprefix("skipping-"),
            "compute": "bf16",
            "skip_first_layers": 1,
            "skip_last_layers": 1,
        }
        for name in SKIPPING
    ),
    {"name": "padded", "title": "", "weight_storage": "nvfp4", "compute": "bf16", "on_indivisible": "pad"},
    {"name": "kept", "title": "", "weight_storage": "nvfp4", "compute": "nvfp4", "on_indivisible": "keep"},
    {"name": "kept-fp8", "title": "", "weight_storage": "fp8-128x128", "compute": "nvfp4", "on_indivisible": "keep"},
]
BLOCKS = 3
LAYERS_OF_A_BLOCK = 7


@pytest.fixture(scope="module")
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose widths are all multiples of 128."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    save_wide_model(folder, blocks=BLOCKS, vocabulary=320)
    tokenizer.save_pretrained(folder)
    (folder / "LICENSE").write_text("Apache-2.0")
    (folder / "modeling.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def export(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run the export stage; returns the folder written."""

    def run(recipe: str, export_format: str = "native", *, model: Path = folder, output: Path | None = None) -> Path:
        request = ExportRequest(
            sweep=small_sweep(model={"path": str(model)}, recipes=RECIPES),
            store=str(tmp_path / "store"),
            recipe=recipe,
            output=output or tmp_path / "exported",
            format=ExportFormat(export_format),
        )
        export_stage(request, tmp_path / "work")
        return request.output

    return run


def trained_weights(folder: Path, recipe: str) -> dict[str, Tensor]:
    """Dequantize the weights of the recipe's layers as the trainer holds them."""
    sweep = small_sweep(recipes=RECIPES)
    layers = stored_layers(load_stored(Source(folder=folder, commit=None), sweep.recipe(recipe)))
    return {f"{name}.weight": dequantized_weight(layer) for name, layer in layers.items()}


@pytest.mark.parametrize("recipe", QUANTIZED)
def test_a_bf16_export_is_loaded_by_transformers_with_the_weights_of_training(
    recipe: str, folder: Path, export: Callable[..., Path]
) -> None:
    output = export(recipe, "bf16")
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.dtype == torch.bfloat16
    expected = load_file(folder / "model.safetensors") | trained_weights(folder, recipe)
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("recipe", "layers"), [("qbnb", BLOCKS), ("skipping-nf4", 1)])
def test_an_nf4_export_is_loaded_by_transformers_with_the_weights_of_training(
    recipe: str, layers: int, folder: Path, export: Callable[..., Path]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(export(recipe), device_map="cpu")
    expected = trained_weights(folder, recipe)
    assert len(expected) == layers * LAYERS_OF_A_BLOCK
    for name, module in model.named_modules():
        is_quantized = f"{name}.weight" in expected
        assert (type(module).__name__ == "Linear4bit") == is_quantized
        if is_quantized:
            assert torch.equal(dequantized_weight(module), expected[f"{name}.weight"])


@pytest.mark.parametrize("recipe", SKIPPING)
def test_skipped_blocks_and_the_output_head_stay_in_bf16_and_are_named(
    recipe: str, folder: Path, export: Callable[..., Path]
) -> None:
    output = export(recipe)
    tensors, published = load_file(output / "model.safetensors"), load_file(folder / "model.safetensors")
    kept = [name for name in published if "layers.1." not in name or "norm" in name]
    assert all(torch.equal(tensors[name], published[name]) for name in kept)
    section = json.loads((output / "config.json").read_text())["quantization_config"]
    named = " ".join(section.get("ignore") or section["llm_int8_skip_modules"]).replace("\\", "")
    assert all(name in named for name in ("lm_head", "model.layers.0", "model.layers.2"))
    assert "model.layers.1" not in named


def test_the_folder_has_all_that_a_server_needs_and_no_code(folder: Path, export: Callable[..., Path]) -> None:
    output = export("qfp4")
    names = {path.name for path in output.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", EXPORT_FILE, "LICENSE"}
    assert not [name for name in names if name.endswith(".py")]
    assert AutoTokenizer.from_pretrained(output)("abc") == AutoTokenizer.from_pretrained(folder)("abc")
    assert (output / "model.safetensors").stat().st_mode & 0o444 == 0o444
    config, published = (json.loads((each / "config.json").read_text()) for each in (output, folder))
    assert config.pop("quantization_config")["format"] == "nvfp4-pack-quantized"
    assert config == published


def test_the_record_states_what_was_written_and_how_far_it_equals_training(export: Callable[..., Path]) -> None:
    output = export("qfp4")
    record = ExportRecord.model_validate_json((output / EXPORT_FILE).read_bytes())
    assert (record.recipe, record.weight_storage.value, record.layers) == ("qfp4", "nvfp4", BLOCKS * LAYERS_OF_A_BLOCK)
    assert record.weight_bytes == sum(tensor.nbytes for tensor in load_file(output / "model.safetensors").values())
    parts = {name.rpartition(".")[2] for name in record.relative_errors}
    assert parts <= {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}
    assert len(record.relative_errors) == BLOCKS * 3  # two of q, k, v; one of gate, up
    assert all(0 < error < 0.05 for error in record.relative_errors.values())
    assert any("divisors" in note for note in record.notes)


def test_a_tied_output_head_is_written_once(model_folder: Path, export: Callable[..., Path]) -> None:
    output = export("qbnb", model=model_folder)
    assert "lm_head.weight" not in load_file(output / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(output, device_map="cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_many_files_with_an_index_hold_what_one_file_does(folder: Path, tmp_path: Path) -> None:
    recipe = small_sweep(recipes=RECIPES).recipe("qfp8-bf16")
    model = load_stored(Source(folder=folder, commit=None), recipe)
    layers, target = stored_layers(model), checkpoint_format(recipe, ExportFormat.BF16)
    for name, size in (("one", 1 << 30), ("many", 300_000)):
        (tmp_path / name).mkdir()
        write_weights(tmp_path / name, model, layers, target, shard_bytes=size)
        shutil.copy(folder / "config.json", tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    one, many = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "many"))
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)


@pytest.mark.parametrize(
    ("recipe", "export_format"),
    [*((name, "native") for name in (*QUANTIZED, *SKIPPING)), ("qfp4", "bf16"), ("fp8", "bf16")],
)
def test_the_size_is_known_before_the_weights_are_loaded(
    recipe: str, export_format: str, folder: Path, export: Callable[..., Path]
) -> None:
    expected = expected_bytes(folder, small_sweep(recipes=RECIPES).recipe(recipe), ExportFormat(export_format))
    written = (export(recipe, export_format) / "model.safetensors").stat().st_size
    assert 0.95 * written < expected < 1.2 * written


def test_a_recipe_that_stores_bf16_exports_the_published_model(folder: Path, export: Callable[..., Path]) -> None:
    written, published = (load_file(each / "model.safetensors") for each in (export("fp8", "bf16"), folder))
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)


def test_a_disk_with_too_little_room_is_refused_before_anything_is_loaded(
    export: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 << 20))
    with pytest.raises(ConfigError, match=r"output: is on a disk with 5 MiB free, and the checkpoint takes 6\d MiB"):
        export("qfp4")
    assert not (tmp_path / "exported").exists()


def test_a_base_that_is_quantized_already_is_refused_by_its_method(export: Callable[..., Path], tmp_path: Path) -> None:
    first = export("qbnb", output=tmp_path / "first")
    with pytest.raises(ConfigError, match=r"quantized already \(bitsandbytes\).*Use the unquantized checkpoint"):
        export("qfp4", model=first)


def test_projections_that_vllm_cannot_split_into_blocks_are_refused_by_name(
    model_folder: Path, export: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"divisible by 128; model\.layers\.0\.mlp\.gate_proj|k_proj has 64.*bf16"):
        export("qfp8-bf16", model=model_folder)
    assert not (tmp_path / "exported").exists()
    export("qfp8-bf16", "bf16", model=model_folder)


def test_blocks_that_were_padded_are_exported_in_bf16_alone(
    tokenizer: PreTrainedTokenizerFast, export: Callable[..., Path], tmp_path: Path
) -> None:
    TinyModel(kind="llama", settings={"intermediate_size": 100}).save(tmp_path / "narrow", tokenizer)
    with pytest.raises(ConfigError, match=r"are divisible by 16; model\.layers\.0\.mlp\.down_proj has 100.*bf16"):
        export("padded", model=tmp_path / "narrow")
    assert not (tmp_path / "exported").exists()
    written = load_file(export("padded", "bf16", model=tmp_path / "narrow") / "model.safetensors")
    expected = trained_weights(tmp_path / "narrow", "padded")
    assert expected["model.layers.0.mlp.down_proj.weight"].shape == (64, 100)
    assert all(torch.equal(written[name], values) for name, values in expected.items())


def test_layers_that_a_recipe_keeps_stay_in_bf16_in_a_checkpoint_too(
    tokenizer: PreTrainedTokenizerFast, export: Callable[..., Path], tmp_path: Path
) -> None:
    """Products of `kept` need blocks in outputs as well, so that it keeps up_proj, which its storage could hold."""
    TinyModel(kind="llama", settings={"intermediate_size": 100}).save(tmp_path / "narrow", tokenizer)
    output = export("kept", model=tmp_path / "narrow")
    written = {name for name in load_file(output / "model.safetensors") if name.startswith("model.layers.0.mlp")}
    assert written == {f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up", "down")}
    ignored = json.loads((output / "config.json").read_text())["quantization_config"]["ignore"]
    for name, stays in (("0.mlp.up_proj", True), ("1.mlp.down_proj", True), ("0.self_attn.q_proj", False)):
        found = [each for each in ignored if re.match(each.removeprefix("re:"), f"model.layers.{name}")]
        assert bool(found) == stays, name


@pytest.mark.parametrize("recipe", ["kept", "kept-fp8"])
def test_projections_of_which_a_recipe_keeps_only_some_are_refused_by_name(
    recipe: str, tokenizer: PreTrainedTokenizerFast, export: Callable[..., Path], tmp_path: Path
) -> None:
    """The only key head has 24 outputs, which the blocks of products do not divide; the queries' 96 they do."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 24}
    TinyModel(kind="llama", settings=heads).save(tmp_path / "narrow", tokenizer)
    with pytest.raises(
        ConfigError,
        match=r"all or none .*keeps model\.layers\.0\.self_attn\.k_proj, model\.layers\.0\.self_attn\.v_proj in bf16"
        r".*--format bf16",
    ):
        export(recipe, model=tmp_path / "narrow")
    assert not (tmp_path / "exported").exists()
    written = load_file(export(recipe, "bf16", model=tmp_path / "narrow") / "model.safetensors")
    published = load_file(tmp_path / "narrow" / "model.safetensors")
    for name, same in (("q_proj", False), ("k_proj", True)):
        weight = f"model.layers.0.self_attn.{name}.weight"
        assert torch.equal(written[weight], published[weight]) == same


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("fp9", r"the sweep has no such recipe \(got 'fp9'\)\. It has bf16, fp8, qbnb"),
        ("fp8", r"its base is the published model .* --format bf16"),
    ],
)
def test_a_recipe_that_cannot_be_exported_is_refused(
    recipe: str, message: str, export: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        export(recipe)
    assert not (tmp_path / "exported").exists()


def test_an_empty_folder_is_filled_and_one_with_files_is_left_alone(
    export: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "exported").mkdir()
    output = export("qfp4")
    before = sorted(path.name for path in output.iterdir())
    with pytest.raises(ConfigError, match="is not empty, and nothing is overwritten"):
        export("qbnb")
    assert sorted(path.name for path in output.iterdir()) == before
