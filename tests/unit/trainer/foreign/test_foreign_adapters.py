"""Importing adapters that PEFT wrote: what is accepted computes the same afterwards, and what is not is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models.foreign_adapters import NAME, TARGETS, Import, edit_config, edit_tensors, logits, make_adapter
from safetensors.torch import load_file, save_file

from surogate_bench.errors import ConfigError

SERVED: dict[str, dict[str, Any]] = {
    "plain": {},
    "rsLoRA": {"use_rslora": True, "lora_alpha": 6},
    "every linear layer": {"target_modules": "all-linear"},
    "a regular expression": {"target_modules": r".*layers\.1\..*(q_proj|up_proj)"},
    "patterns": {
        "rank_pattern": {"v_proj": 2, r"layers\.1\.mlp\.down_proj": 8},
        "alpha_pattern": {r".*\.1\.self_attn\..*": 3, "down_proj": 20},
    },
    "patterns with rsLoRA": {"use_rslora": True, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"v_proj": 5}},
    "one layer": {"layers_to_transform": [1]},
    "dropout and Gaussian start": {"lora_dropout": 0.1, "init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("settings", SERVED.values(), ids=SERVED)
def test_an_imported_adapter_gives_the_same_logits_through_peft(
    settings: dict[str, Any], imported: Import, model_folder: Path, tmp_path: Path
) -> None:
    folder = make_adapter(model_folder, tmp_path / "adapter", **settings)
    result, written = imported(folder)
    assert sorted(path.name for path in written.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert torch.equal(logits(model_folder, written), logits(model_folder, folder))
    assert not result.warnings
    assert result.layers == len(load_file(written / "adapter_model.safetensors")) / 2


@pytest.mark.parametrize("settings", SERVED.values(), ids=SERVED)
def test_vllm_scales_an_imported_adapter_as_peft_does(
    settings: dict[str, Any], imported: Import, model_folder: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    helper = pytest.importorskip("vllm.lora.peft_helper").PEFTHelper
    folder = make_adapter(model_folder, tmp_path / "adapter", **settings)
    _, written = imported(folder)
    theirs = helper.from_local_dir(str(written), None)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), str(folder))
    layers = {name: module for name, module in adapted.named_modules() if hasattr(module, "lora_A") and module.lora_A}
    for name, module in layers.items():
        rank, scale = theirs.get_rank_and_scaling(name.removeprefix("base_model.model."))
        assert rank == module.r["default"]
        assert scale == pytest.approx(module.scaling["default"], rel=1e-12)
    assert layers


def test_the_result_says_what_was_imported(imported: Import, adapter: Path) -> None:
    result, _ = imported(adapter, entry={"trained_under": "fp8"})
    assert (result.ranks, result.alphas, result.use_rslora) == ((4,), (8.0,), False)
    assert result.target_modules == tuple(sorted(TARGETS))
    assert (result.source, result.revision, result.trained_under) == (str(adapter), None, "fp8")
    assert set(result.source_files) == {"adapter_config.json", "adapter_model.safetensors"}


def test_the_same_adapter_is_imported_as_the_same_bytes(imported: Import, adapter: Path) -> None:
    first, _ = imported(adapter)
    second, _ = imported(adapter, name="again")
    assert first.adapter_sha256 == second.adapter_sha256


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "use_dora"),
    "biases": ({"bias": "lora_only"}, "bias"),
    "biases of B": ({"lora_bias": True}, "lora_bias"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "new tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
}


@pytest.mark.parametrize(("settings", "field"), CONFIGS.values(), ids=CONFIGS)
def test_what_vllm_does_not_serve_is_refused_by_name(
    settings: dict[str, Any], field: str, imported: Import, model_folder: Path, tmp_path: Path
) -> None:
    folder = make_adapter(model_folder, tmp_path / "adapter", **settings)
    with pytest.raises(ConfigError) as caught:
        imported(folder)
    assert caught.value.field == f"adapters.{NAME}.path: {field} in adapter_config.json"
    assert caught.value.value
    assert caught.value.remedy


EDITED: dict[str, tuple[dict[str, Any], str]] = {
    "other type": ({"peft_type": "IA3"}, "is not LoRA"),
    "no type": ({"peft_type": None}, "is not LoRA"),
    "unhashable type": ({"peft_type": ["LORA"]}, "is not LoRA"),
    "classifier": ({"task_type": "SEQ_CLS"}, "another task"),
    "experts": ({"target_parameters": ["experts.down_proj"]}, "not linear layers"),
    "variant": ({"kasa_config": {"beta": 1}}, "is a variant of LoRA"),
    "no rank": ({"r": 0}, "whole number"),
    "rank that is none": ({"r": True}, "whole number"),
    "huge alpha": ({"lora_alpha": 10**400}, "finite number"),
    "alpha that is none": ({"lora_alpha": "8"}, "finite number"),
    "other rank than the matrices": ({"r": 8}, "which have rank 4"),
    "pattern that is none": ({"alpha_pattern": {"(": 1}}, "not a regular expression"),
    "endless pattern": ({"rank_pattern": {r"(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)\8\7[0-9]": 1}}, "takes too long"),
    "pattern without numbers": ({"alpha_pattern": {"q_proj": "2"}}, "table of numbers"),
    "many patterns": ({"rank_pattern": {f"x{n}": 1 for n in range(5000)}}, "more than 4096"),
}


@pytest.mark.parametrize(("changes", "problem"), EDITED.values(), ids=EDITED)
def test_a_configuration_that_is_wrong_is_refused(
    changes: dict[str, Any], problem: str, imported: Import, adapter: Path
) -> None:
    edit_config(adapter, **changes)
    with pytest.raises(ConfigError, match=problem):
        imported(adapter)


TEXTS = {
    "no JSON": (b"{", "not strict JSON"),
    "no UTF-8": (b'{"r": "\xff"}', "not strict JSON"),
    "two values": (b'{"r": 1, "r": 2}', "twice"),
    "NaN": (b'{"r": NaN}', "not a JSON number"),
    "deep": (b'{"r": ' + b"[" * 100_000, "not strict JSON"),
    "list": (b"[]", "not a JSON object"),
    "large": (b" " * (1 << 20) + b"{}", "adapter_config.json has 1,048,578 bytes"),
}


@pytest.mark.parametrize(("data", "problem"), TEXTS.values(), ids=TEXTS)
def test_a_configuration_that_is_not_strict_json_is_refused(
    data: bytes, problem: str, imported: Import, adapter: Path
) -> None:
    (adapter / "adapter_config.json").write_bytes(data)
    with pytest.raises(ConfigError, match=problem):
        imported(adapter)


def test_a_base_model_of_another_name_is_a_warning(imported: Import, adapter: Path) -> None:
    edit_config(adapter, base_model_name_or_path="somebody/another-model")
    result, written = imported(adapter)
    assert "somebody/another-model" in result.warnings[0]
    assert "another-model" not in (written / "adapter_config.json").read_text()


def test_an_adapter_that_changes_nothing_is_a_warning(imported: Import, adapter: Path) -> None:
    edit_tensors(adapter, lambda found: [found[name].zero_() for name in found if "lora_B" in name])
    result, _ = imported(adapter)
    assert "changes nothing" in result.warnings[0]


def test_settings_of_other_software_are_left_behind(imported: Import, adapter: Path) -> None:
    edit_config(adapter, auto_mapping={"unsloth_fixed": True}, lorap_lr_ratio=2.0, loftq_config={})
    (adapter / "README.md").write_text("text")
    (adapter / "training_args.bin").write_bytes(b"a pickle beside the adapter, which is never opened")
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt", "note": "text"})
    _, written = imported(adapter)
    assert json.loads((written / "adapter_config.json").read_text()).keys() == {
        "peft_type", "task_type", "base_model_name_or_path", "inference_mode", "bias", "target_modules", "r",
        "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
    }  # fmt: skip
    assert b"note" not in (written / "adapter_model.safetensors").read_bytes()
