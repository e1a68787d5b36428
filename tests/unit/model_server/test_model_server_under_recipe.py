"""Serving under a recipe, up to vLLM's command line: which recipe, what is refused, which input scales are used."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_stages import manifest_of
from safetensors.numpy import save_file
from sweeps import small_sweep
from worlds.model_server import LAYOUT

from surogate_bench.contract import INPUT_SCALES_FILE, SERVED_RECIPE_VARIABLE
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.recipes import recipe_by_name
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench.stages.publication import publish_stage
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_model_server import cpu_lora
from surogate_bench_model_server import served_recipe as plugin
from surogate_bench_model_server.adapters.calibration import read_prompts, scale_source
from surogate_bench_model_server.adapters.delivery import deliver_adapter
from surogate_bench_model_server.served_recipe.settings import (
    ServedRecipe,
    require_unquantized,
    runs_trained_under,
    served_recipe,
)
from surogate_bench_model_server.vllm.command import Command, ServerSettings, vllm_command

OWN = {"name": "mine", "title": "FP8", "weight_storage": "bf16", "compute": "fp8-hybrid"}
LAYER = "model.layers.0.self_attn.q_proj"


def command(recipe: str, tmp_path: Path, platform: Any = "cpu", plugins: str | None = None) -> Command:
    served = ServedRecipe(recipe=recipe_by_name(recipe))
    settings = ServerSettings(
        host="127.0.0.1", port=8000, platform=platform, served=served, recipe_file=served.write(tmp_path)
    )
    inherited = {} if plugins is None else {"VLLM_PLUGINS": plugins}
    return vllm_command(small_sweep(), ModelLocation("base"), settings, inherited=inherited)


def publish(store: ObjectStore, folder: Path, scales: dict[str, Any] | None) -> None:
    (folder / "adapter").mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"]}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    ones = np.ones((1, 1), np.float32)
    tensors = {f"base_model.model.{LAYER}.lora_{matrix}.weight": ones for matrix in "AB"}
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
    if scales is not None:
        save_file(scales, folder / INPUT_SCALES_FILE)
    manifest = Manifest(
        stage="train", run="fp8-s0", spec_hash=LAYOUT.spec_hash, created=datetime.now(UTC), files={}, hardware={},
        versions={}, result={},
    )  # fmt: skip
    assert publish_stage(store, LAYOUT.train("fp8-s0"), folder, manifest)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.mark.parametrize("under", [None, "bf16"])
def test_the_base_as_published_needs_no_plug_in(under: str | None) -> None:
    assert served_recipe(small_sweep(), under) is None


def test_a_recipe_of_the_sweep_comes_before_a_built_in_one_of_the_same_name() -> None:
    found = served_recipe(small_sweep(recipes=[OWN | {"name": "fp8", "fp8_margin": 2}]), "fp8")
    assert found is not None
    assert found.recipe.fp8_margin == 2
    built_in = served_recipe(small_sweep(recipes=["bf16"]), "qfp4")
    assert built_in is not None
    assert built_in.recipe == recipe_by_name("qfp4")


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no such recipe"):
        served_recipe(small_sweep(), "fp5")


@pytest.mark.parametrize("argument", ["--quantization=fp8", "-q", "--quantization_config={}"])
def test_another_quantization_is_refused_beside_a_recipe(argument: str) -> None:
    sweep = small_sweep(serving={"extra_args": [argument]})
    with pytest.raises(ConfigError, match=r"serving\.extra_args"):
        served_recipe(sweep, "fp8")


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"text_config": {"quantization_config": {"bits": 4}}}, "unknown"),
    ],
)
def test_a_base_that_is_quantized_already_is_refused_by_name(
    config: dict[str, Any], method: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=f"quantized already.*{method}.*Use the unquantized checkpoint"):
        require_unquantized(tmp_path, "recipe fp8 starts from")


def test_runs_are_trained_under_a_recipe_whatever_it_is_called() -> None:
    sweep = small_sweep(recipes=["bf16", "fp8", OWN, OWN | {"name": "wide", "fp8_margin": 1}], seeds=[0, 3])
    assert runs_trained_under(sweep, recipe_by_name("fp8")) == {"fp8-s0", "fp8-s3", "mine-s0", "mine-s3"}


def test_vllm_is_started_with_the_recipe_in_a_file_that_the_plug_in_reads(tmp_path: Path) -> None:
    made = command("qfp4", tmp_path)
    assert made.arguments[-2:] == ["--quantization", "surogate-bench-recipe"]
    file = Path(made.environment[SERVED_RECIPE_VARIABLE])
    assert ServedRecipe.read(file).recipe == recipe_by_name("qfp4")


def test_both_plug_ins_load_although_the_environment_names_others(tmp_path: Path) -> None:
    made = command("fp8", tmp_path, plugins="theirs")
    assert made.environment["VLLM_PLUGINS"].split(",") == ["theirs", cpu_lora.PLUGIN, plugin.PLUGIN]


@pytest.mark.parametrize(("recipe", "eager"), [("fp8", True), ("fp4", True), ("qbnb", False), ("qfp8-bf16", False)])
def test_a_gpu_keeps_cuda_graphs_where_products_are_those_of_bf16(recipe: str, eager: bool, tmp_path: Path) -> None:
    assert ("--enforce-eager" in command(recipe, tmp_path, platform="cuda").arguments) is eager


def test_scales_of_training_come_with_the_adapter_where_they_are_requested(store: ObjectStore, tmp_path: Path) -> None:
    publish(store, tmp_path / "stage", {LAYER: np.array(2.5, np.float32)})
    prefix = LAYOUT.train("fp8-s0")
    plain = deliver_adapter(store, "fp8-s0", prefix, into=tmp_path / "plain", max_rank=16)
    scaled = deliver_adapter(store, "fp8-s0", prefix, into=tmp_path / "scaled", max_rank=16, with_input_scales=True)
    assert plain.name == scaled.name
    assert scale_source(plain) is None
    assert scale_source(scaled) == "training"


def test_a_training_of_an_earlier_version_has_no_scales(store: ObjectStore, tmp_path: Path) -> None:
    publish(store, tmp_path / "stage", None)
    prefix = LAYOUT.train("fp8-s0")
    adapter = deliver_adapter(store, "fp8-s0", prefix, into=tmp_path / "local", max_rank=16, with_input_scales=True)
    assert scale_source(adapter) is None


@pytest.mark.parametrize("scale", [np.array(0, np.float32), np.array(np.inf, np.float32), np.ones(2, np.float32)])
def test_scales_that_are_no_positive_scalars_are_refused(scale: Any, store: ObjectStore, tmp_path: Path) -> None:
    publish(store, tmp_path / "stage", {LAYER: scale})
    with pytest.raises(PermanentError, match=f"no positive fp32 scalar for {LAYER}"):
        deliver_adapter(
            store, "fp8-s0", LAYOUT.train("fp8-s0"), into=tmp_path / "local", max_rank=16, with_input_scales=True
        )


def test_inputs_are_measured_on_the_first_training_records(store: ObjectStore, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    (folder / "data").mkdir(parents=True)
    lines = [json.dumps({"question": f"q{number}", "answer": f"a{number}"}) for number in range(100)]
    (folder / "data" / "train.jsonl").write_text("\n".join(lines) + "\n")
    sweep = small_sweep()
    request = PrepareRequest(sweep=sweep, store=store.url)
    publish_stage(store, request.layout.prepare, folder, manifest_of(request, special_tokens=("<s>",)))
    prompts = read_prompts(store, request.layout, sweep.data, scratch=tmp_path / "scratch")
    assert len(prompts.texts) == 64
    assert prompts.texts[63] == "Question: q63\nAnswer: a63"
    assert prompts.special_tokens


@pytest.mark.parametrize("special_tokens", [False, True])
def test_inputs_are_measured_on_texts_as_they_were_rendered(
    store: ObjectStore, tmp_path: Path, special_tokens: bool
) -> None:
    folder = tmp_path / "prepared"
    (folder / "data").mkdir(parents=True)
    line = {"text": "user: q\u2028 assistant: a", "counted": [[20, 21]], "special_tokens": special_tokens}
    (folder / "data" / "train.jsonl").write_text((json.dumps(line, ensure_ascii=False) + "\n") * 3, encoding="utf-8")
    sweep = small_sweep()
    request = PrepareRequest(sweep=sweep, store=store.url)
    publish_stage(store, request.layout.prepare, folder, manifest_of(request, special_tokens=("<s>",)))
    prompts = read_prompts(store, request.layout, sweep.data, scratch=tmp_path / "scratch")
    assert prompts.texts == ("user: q\u2028 assistant: a",) * 3
    assert prompts.special_tokens is special_tokens
