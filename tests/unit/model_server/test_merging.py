"""Adapters merged into their base: the weights against PEFT, what is refused, and interrupted merges."""

import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models.foreign_adapters import edit_config, edit_tensors, make_adapter
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sweeps import small_sweep
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from surogate_bench.errors import ConfigError, ExitCode, PermanentError
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench_model_server.merging.plan import merge_plan
from surogate_bench_model_server.merging.step import MergeStep, plan_step, remove_merged
from surogate_bench_model_server.merging.weights import merged, write_merged
from surogate_bench_model_server.vllm.command import ServerSettings, vllm_command

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 8},
        "alpha_pattern": {"v_proj": 3, "model.layers.0.self_attn.q_proj": 5},
    },
    "rslora with patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}},
    "every linear layer": {"target_modules": "all-linear"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bf16 model whose checkpoint takes several files."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    settings = Qwen3Config(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16,
    )  # fmt: skip
    Qwen3ForCausalLM(settings).to(torch.bfloat16).save_pretrained(folder, max_shard_size="64KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def by_peft(base: Path, adapter: Path) -> dict[str, Tensor]:
    """Merge with PEFT, as its documentation shows."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    return dict(PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict())


def checkpoint(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_merged_weights_equal_those_of_peft_bit_for_bit(settings: dict[str, Any], base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", **settings)
    changed, size = write_merged(base, adapter, tmp_path / "merged")
    found, expected, before = checkpoint(tmp_path / "merged"), by_peft(base, adapter), checkpoint(base)
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert changed == sum(int((found[name] != before[name]).sum()) for name in found)
    assert 0 < changed <= size


def test_the_sum_is_rounded_once() -> None:
    weight, a = torch.tensor([[1.0]], dtype=torch.bfloat16), torch.tensor([[2.0**-8 + 2.0**-17]])
    # In bf16 the update is 2**-8, and the sum a tie, which is rounded to 1.
    assert float(merged(weight, a, torch.ones(1, 1), 1.0)) == 1 + 2.0**-7
    assert float(weight + a.to(torch.bfloat16)) == 1.0


def test_a_checkpoint_in_fp32_is_merged_as_the_bf16_weights_that_are_served(base: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).save_pretrained(wide)
    edit = {name: tensor + 1e-4 for name, tensor in load_file(wide / "model.safetensors").items()}
    save_file(edit, wide / "model.safetensors", metadata={"format": "pt"})
    adapter = make_adapter(base, tmp_path / "adapter")
    write_merged(wide, adapter, tmp_path / "merged")
    found, expected = checkpoint(tmp_path / "merged"), by_peft(wide, adapter)
    assert all(torch.equal(found[name].to(torch.bfloat16), expected[name]) for name in found)


def test_what_merging_does_not_change_is_linked_and_the_result_loads(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"], layers_to_transform=[1])
    plan = merge_plan(base, adapter)
    assert [layer.weight for layers in plan.values() for layer in layers] == ["model.layers.1.self_attn.q_proj.weight"]
    write_merged(base, adapter, tmp_path / "merged")
    files = {path.name: path for path in (tmp_path / "merged").iterdir()}
    assert files.keys() == {path.name for path in base.iterdir()}
    assert {name for name, path in files.items() if not path.is_symlink()} == plan.keys()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in by_peft(base, adapter).items())


def quantize(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        save_file({name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(path).items()}, path)


def rename(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        save_file({name.replace("model.", "transformer."): each for name, each in load_file(path).items()}, path)


def narrow(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        save_file({name: each.flatten()[:8] for name, each in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (quantize, "the base is quantized: it stores model.layers.*_proj.weight as F8_E4M3, so it cannot be"),
        (rename, "changes 6 layers that the checkpoint has no weights of, such as model.layers.0.mlp.down_proj.weight"),
        (narrow, "model.layers.*_proj.weight of the checkpoint is 8, and .* give 64 x 64"),
    ],
)
def test_a_base_that_the_adapter_cannot_be_merged_into_is_refused_by_name(
    change: Any, said: str, base: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(base, tmp_path / "adapter")
    other = Path(shutil.copytree(base, tmp_path / "other"))
    change(other)
    with pytest.raises(ConfigError, match=rf"serving.merged: .*{said}"):
        plan_step(other, adapter, tmp_path)


def test_transposed_weights_and_half_an_adapter_are_refused(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter")
    edit_config(adapter, fan_in_fan_out=True)
    with pytest.raises(ConfigError, match="fan_in_fan_out"):
        merge_plan(base, adapter)
    edit_config(adapter, fan_in_fan_out=False)
    edit_tensors(adapter, lambda tensors: tensors.pop(max(tensors)))
    with pytest.raises(PermanentError, match=r"has .*lora_A.weight and not .*lora_B.weight"):
        merge_plan(base, adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(PermanentError, match=r"adapter_model.safetensors cannot be read"):
        merge_plan(base, adapter)


def test_a_disk_without_room_is_refused_before_anything_is_written(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(base, tmp_path / "adapter")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(ConfigError, match=r"work-dir: .* 0 MiB free, and to hold the merged weights"):
        plan_step(base, adapter, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_vllm_is_started_by_the_step_with_the_merged_model(base: Path, tmp_path: Path) -> None:
    step = MergeStep(base=base, adapter=tmp_path / "adapter", target=tmp_path / "merged")
    settings = ServerSettings(host="127.0.0.1", port=8000, platform="cpu", merge=step)
    command = vllm_command(small_sweep(), ModelLocation(str(base)), settings, inherited={})
    plain = vllm_command(small_sweep(), ModelLocation(str(base)), replace(settings, merge=None), inherited={})
    start, following = command.arguments[:7], command.arguments[7:]
    folders = [str(base), str(step.adapter), str(step.target)]
    assert start == [sys.executable, "-P", "-m", "surogate_bench_model_server.merging", *folders]
    assert following == [str(step.target) if each == str(base) else each for each in plain.arguments]
    assert command.environment == plain.environment
    assert command.environment["HF_HUB_OFFLINE"] == "1"


def run_step(step: MergeStep, following: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(step.command(following), capture_output=True, text=True, check=False, **options)


SHOW = [sys.executable, "-c", "import os, sys; print(os.getpid(), sys.argv[1:])", "--port", "1"]


def test_the_step_merges_once_and_is_then_replaced_by_the_command(base: Path, tmp_path: Path) -> None:
    step = plan_step(base, make_adapter(base, tmp_path / "adapter"), tmp_path / "work")
    with subprocess.Popen(step.command(SHOW), stdout=subprocess.PIPE, text=True) as process:
        said = process.communicate()[0].splitlines()
    assert said[0].startswith("merged: ")
    assert said[1] == f"{process.pid} ['--port', '1']"
    again = run_step(step, SHOW)
    assert (again.returncode, len(again.stdout.splitlines())) == (0, 1)
    remove_merged(tmp_path / "work")
    assert not step.target.exists()


def test_a_killed_merge_leaves_no_part_of_a_model_and_the_next_gives_the_same_bytes(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter")
    write_merged(base, adapter, tmp_path / "undisturbed")
    step = plan_step(base, adapter, tmp_path / "work")
    stop = "import os, surogate_bench_model_server.merging.weights as w; w.save_file = lambda *a, **k: os.abort()"
    code = f"{stop}; from surogate_bench_model_server.merging.__main__ import main; main({step.command(SHOW)[4:]!r})"
    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert killed.returncode < 0
    assert not step.target.exists()
    assert any(step.target.parent.iterdir())  # what was left
    step = plan_step(base, adapter, tmp_path / "work")
    assert not step.target.parent.exists()
    assert run_step(step, SHOW).returncode == 0
    for path in (tmp_path / "undisturbed").iterdir():
        assert path.read_bytes() == (step.target / path.name).read_bytes()


def test_a_step_that_fails_names_its_reason_in_the_log(base: Path, tmp_path: Path) -> None:
    step = plan_step(base, make_adapter(base, tmp_path / "adapter"), tmp_path / "work")
    edit_config(step.adapter, fan_in_fan_out=True)
    failed = run_step(step, SHOW)
    assert (failed.returncode, failed.stdout) == (ExitCode.BAD_INPUT, "")
    assert failed.stderr.startswith("ConfigError: serving.merged: ")
    edit_config(step.adapter, fan_in_fan_out=False)
    step.target.parent.parent.mkdir()
    step.target.parent.write_text("a file where the folder is to be")
    failed = run_step(step, SHOW)
    assert failed.returncode == ExitCode.PERMANENT
    assert "the merged weights cannot be written" in failed.stderr
