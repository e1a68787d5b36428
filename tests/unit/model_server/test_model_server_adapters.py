import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from surogate_bench.contract import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.layout import SweepLayout
from surogate_bench.specs.adapters import attention_output
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import publish_stage
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_model_server.adapters.delivery import (
    LocalAdapter,
    check_adapter,
    check_run_name,
    deliver_adapter,
    find_adapter,
    is_zero,
    make_empty_adapter,
)
from surogate_bench_model_server.adapters.desired import (
    DesiredAdapter,
    read_desired_adapters,
    write_desired_adapters,
)

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "v_proj"],
    "modules_to_save": None,
    "rank_pattern": {},
    "bias": "none",
    "use_dora": False,
}
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
LAYOUT = SweepLayout("served", "0123456789ab")
PREFIX = LAYOUT.train("bf16-s0")


def write_adapter(folder: Path, *, rank: int = 8, b: float = 0.5, tensor: str = LAYER, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADAPTER_CONFIG_FILE).write_text(json.dumps(CONFIG | config))
    tensors = {
        f"{tensor}.lora_A.weight": np.ones((rank, 32), np.float32),
        f"{tensor}.lora_B.weight": np.full((64, rank), b, np.float32),
    }
    save_file(tensors, str(folder / ADAPTER_WEIGHTS_FILE))
    return folder


def check(folder: Path, *, max_rank: int = 16) -> None:
    check_adapter(folder, [path.name for path in folder.iterdir()], max_rank=max_rank)


@dataclass
class Stage:
    """A store with one finished train stage."""

    store: ObjectStore
    into: Path

    def deliver(self, *, max_rank: int = 16) -> LocalAdapter:
        return deliver_adapter(self.store, "bf16-s0", PREFIX, into=self.into, max_rank=max_rank)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(publish(tmp_path / "store", write_adapter(tmp_path / "made" / "adapter").parent), tmp_path / "local")


def publish(location: Path, folder: Path) -> ObjectStore:
    store = open_store(str(location))
    (folder / "metrics.jsonl").write_text("{}\n")
    manifest = Manifest(
        stage="train",
        run="bf16-s0",
        spec_hash=LAYOUT.spec_hash,
        created=datetime.now(UTC),
        files={},
        hardware={},
        versions={},
        result={},
    )
    assert publish_stage(store, PREFIX, folder, manifest)
    return store


def test_a_delivered_adapter_is_named_by_its_content(stage: Stage, tmp_path: Path) -> None:
    adapter = stage.deliver()
    assert adapter.name == adapter.folder.name
    assert adapter.name.startswith("bf16-s0-")
    assert {path.name for path in adapter.folder.iterdir()} == {ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE}
    other = publish(tmp_path / "other", write_adapter(tmp_path / "second" / "adapter", b=0.25).parent)
    assert Stage(other, stage.into).deliver().name != adapter.name


def test_delivering_again_uses_what_lies_there_and_leaves_nothing_else(stage: Stage) -> None:
    first = stage.deliver()
    inode = (first.folder / ADAPTER_WEIGHTS_FILE).stat().st_ino
    assert stage.deliver() == first
    assert (first.folder / ADAPTER_WEIGHTS_FILE).stat().st_ino == inode
    assert list(stage.into.iterdir()) == [first.folder]
    assert find_adapter(first.run, first.name, stage.into) == first


def test_a_damaged_copy_is_not_found_and_is_replaced(stage: Stage) -> None:
    adapter = stage.deliver()
    (adapter.folder / ADAPTER_WEIGHTS_FILE).write_bytes(b"")  # as after a power loss
    assert find_adapter(adapter.run, adapter.name, stage.into) is None
    assert stage.deliver() == adapter
    assert find_adapter(adapter.run, adapter.name, stage.into) == adapter


def test_an_adapter_that_differs_from_its_manifest_is_refused(stage: Stage) -> None:
    stage.store.put(f"{PREFIX}/adapter/{ADAPTER_WEIGHTS_FILE}", b"something else")
    with pytest.raises(PermanentError, match="is missing or differs from its manifest"):
        stage.deliver()
    assert list(stage.into.iterdir()) == []


def test_an_unfinished_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="the stage is not finished"):
        Stage(open_store(str(tmp_path / "store")), tmp_path / "local").deliver()


def test_a_rank_above_the_servers_is_refused(stage: Stage) -> None:
    with pytest.raises(PermanentError, match=r"rank 8 is above serving\.max_lora_rank 4\. Raise max_lora_rank"):
        stage.deliver(max_rank=4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rank_pattern": {"q_proj": 32}}, "rank 32 is above"),
        ({"modules_to_save": ["lm_head"]}, "contains whole modules .*lm_head"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "changes embed_tokens; served are"),
        ({"target_modules": "all-linear"}, "cannot be understood"),
        ({"peft_type": "IA3"}, "of type IA3"),
        ({"bias": "all"}, "trains biases or uses DoRA"),
        ({"use_dora": True}, "trains biases or uses DoRA"),
        ({"r": 0}, "cannot be understood"),
    ],
)
def test_what_vllm_would_refuse_or_ignore_is_refused_first(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path, **config)
    with pytest.raises(PermanentError, match=message):
        check(folder)


def test_weights_are_believed_rather_than_the_rank_in_the_configuration(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, rank=32)
    with pytest.raises(PermanentError, match=r"lora_[AB]\.weight has rank 32, above serving\.max_lora_rank 16"):
        check(folder)


@pytest.mark.parametrize(("b", "zero"), [(0.0, True), (1e-30, False)], ids=["untrained", "hardly trained"])
def test_an_adapter_is_accepted_however_little_it_changes(tmp_path: Path, b: float, zero: bool) -> None:
    folder = write_adapter(tmp_path, b=b)
    check(folder)
    assert is_zero(LocalAdapter(run="bf16-s0", name="bf16-s0", folder=folder)) == zero


def remove_weights(folder: Path) -> None:
    (folder / ADAPTER_WEIGHTS_FILE).unlink()


def cut_weights(folder: Path) -> None:
    (folder / ADAPTER_WEIGHTS_FILE).write_bytes((folder / ADAPTER_WEIGHTS_FILE).read_bytes()[:-8])


def empty_weights(folder: Path) -> None:
    save_file({}, str(folder / ADAPTER_WEIGHTS_FILE))


def spoil_config(folder: Path) -> None:
    (folder / ADAPTER_CONFIG_FILE).write_text("{")


def add_pickle(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"")


def add_full_matrix(folder: Path) -> None:
    save_file({"base_model.model.lm_head.weight": np.ones((4, 4), np.float32)}, str(folder / ADAPTER_WEIGHTS_FILE))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_weights, "has no adapter_model.safetensors"),
        (cut_weights, "is damaged"),
        (empty_weights, "is empty"),
        (spoil_config, "cannot be understood"),
        (add_pickle, "holds adapter_model.bin: only safetensors are loaded"),
        (add_full_matrix, "'base_model.model.lm_head.weight', which is not a LoRA matrix"),
    ],
)
def test_a_spoilt_adapter_is_refused_with_the_reason(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path)
    spoil(folder)
    with pytest.raises(PermanentError, match=message):
        check(folder)


@pytest.mark.parametrize("run", ["", "../etc", "a/b", "Bf16", "-a", "a b", "a" * 81, "a\n"])
def test_a_name_that_could_leave_its_folder_is_refused(run: str) -> None:
    with pytest.raises(ConfigError, match="is not a run name"):
        check_run_name(run)


def test_the_names_of_runs_are_accepted() -> None:
    assert check_run_name("qfp8-fp8-hybrid-s12345") == "qfp8-fp8-hybrid-s12345"


def test_desired_adapters_survive_a_restart_for_the_same_sweep_only(tmp_path: Path) -> None:
    desired = {"bf16-s0": DesiredAdapter(name="bf16-s0-0123456789ab", prefix=PREFIX)}
    assert read_desired_adapters(tmp_path, LAYOUT) == {}
    write_desired_adapters(tmp_path, desired)
    assert read_desired_adapters(tmp_path, LAYOUT) == desired
    assert read_desired_adapters(tmp_path, SweepLayout("served", "fedcba987654")) == {}
    (tmp_path / "desired-adapters.json").write_text("{")
    assert read_desired_adapters(tmp_path, LAYOUT) == {}


def test_an_adapter_that_changes_nothing_names_a_layer_that_the_model_has(tmp_path: Path) -> None:
    """Names of layers that no block of the model has are refused by vLLM: GPT-NeoX has no o_proj, Phi-3 no q_proj."""
    for kind, layer in (("gpt_neox", "dense"), ("phi3", "o_proj"), ("qwen3", "o_proj")):
        adapter = make_empty_adapter(f"empty-{kind}", tmp_path, layer=attention_output(kind))
        tensors = load_file(adapter.folder / "adapter_model.safetensors")
        assert {name.split(".lora_")[0].rpartition(".")[2] for name in tensors} == {layer}
        assert not any(tensor.any() for tensor in tensors.values())
        config = json.loads((adapter.folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert config["target_modules"] == [layer]
        assert is_zero(adapter)
