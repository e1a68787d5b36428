"""Files of foreign adapters are not trusted: their matrices, their sizes, and where they lie."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from models.foreign_adapters import LAYER, NAME, Import, edit_tensors, import_into, make_adapter
from safetensors.torch import load_file
from stand_ins.hub import Hub, Repository, serving
from stand_ins.s3 import Bucket
from stand_ins.s3 import serving as serving_s3
from torch import Tensor
from transformers import Qwen3ForCausalLM

from surogate_bench.errors import ConfigError
from surogate_bench.layout import SweepLayout
from surogate_bench.results import PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.local_inputs import digest_inputs, require_unchanged
from surogate_bench.stages.publication import read_result
from surogate_bench.store.object_store import open_store

A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
Change = Callable[[dict[str, Tensor]], object]


def set_to(name: str, tensor: Tensor) -> Change:
    return lambda found: found.update({name: tensor})


def fill(value: float) -> Change:
    return lambda found: found[B].view(-1)[3:5].fill_(value)


TENSORS: dict[str, tuple[Change, str]] = {
    "A without B": (lambda found: found.pop(B), "has lora_A of .* without lora_B"),
    "B without A": (lambda found: found.pop(A), "has lora_B of .* without lora_A"),
    "NaN": (fill(float("nan")), "has 2 NaN or infinite values in .*lora_B"),
    "infinity": (fill(float("inf")), "has 2 NaN or infinite values"),
    "infinite in bf16": (fill(3.4e38), "has 2 NaN or infinite values"),
    "other inputs": (set_to(A, torch.ones(4, 65)), "needs rank x 64"),
    "other outputs": (set_to(B, torch.ones(127, 4)), "and 128 x rank"),
    "halves of different rank": (set_to(B, torch.ones(128, 3)), "has A 4 x 64 and B 128 x 3"),
    "three dimensions": (set_to(A, torch.ones(4, 64, 1)), "has A 4 x 64 x 1"),
    "scalar": (set_to(A, torch.tensor(1.0)), "a scalar"),
    "rank 0": (lambda found: found.update({A: torch.ones(0, 64), B: torch.ones(128, 0)}), "has A 0 x 64"),
    "double precision": (set_to(A, torch.ones(4, 64, dtype=torch.float64)), "as F64"),
    "integers": (set_to(A, torch.ones(4, 64, dtype=torch.int8)), "as I8"),
    "magnitudes": (set_to(f"{LAYER}.lora_magnitude_vector", torch.ones(128)), "magnitude of DoRA"),
    "bias": (set_to(f"{LAYER}.lora_B.bias", torch.ones(128)), "trained bias"),
    "whole module": (set_to("base_model.model.lm_head.weight", torch.ones(320, 64)), "whole weight"),
    "embedding": (set_to("base_model.model.model.embed_tokens.lora_embedding_A", torch.ones(4, 320)), "an embedding"),
    "output head": (set_to("base_model.model.lm_head.lora_A.weight", torch.ones(4, 64)), "output head"),
    "unknown tensor": (set_to("step", torch.ones(1)), "not a matrix of PEFT's LoRA"),
    "no PEFT name": (set_to("model.layers.0.self_attn.q_proj.lora_A.weight", torch.ones(4, 64)), "whole weight"),
    "path": (set_to("base_model.model.../../x.lora_A.weight", torch.ones(4, 64)), "no layer|whole weight"),
    "nothing": (lambda found: found.clear(), "holds no matrices"),
    "layer that is not there": (
        lambda found: found.update({name.replace("layers.0", "layers.9"): found[name] for name in (A, B)}),
        "layers.9.self_attn.q_proj, which is not a layer of the sweep's model",
    ),
    "module that is not linear": (
        lambda found: found.update({name.replace("q_proj", "q_norm"): found[name] for name in (A, B)}),
        "q_norm, which is not among the linear layers",
    ),
}


@pytest.mark.parametrize(("change", "problem"), TENSORS.values(), ids=TENSORS)
def test_matrices_that_do_not_fit_are_refused(change: Change, problem: str, imported: Import, adapter: Path) -> None:
    edit_tensors(adapter, change)
    with pytest.raises(ConfigError, match=problem) as caught:
        imported(adapter)
    assert caught.value.field == f"adapters.{NAME}.path"
    assert caught.value.remedy


def test_an_adapter_of_another_model_is_refused(
    imported: Import, make_model: Callable[..., Qwen3ForCausalLM], tmp_path: Path
) -> None:
    make_model(hidden_size=32).save_pretrained(tmp_path / "other")
    folder = make_adapter(tmp_path / "other", tmp_path / "adapter")
    with pytest.raises(ConfigError, match="Use an adapter that was trained on this model"):
        imported(folder)


def test_a_rank_above_the_served_one_is_refused(imported: Import, adapter: Path) -> None:
    with pytest.raises(ConfigError, match=r"has rank 4 at .*, above serving.max_lora_rank 3"):
        imported(adapter, serving={"max_lora_rank": 3}, training={"lora": {"r": 2}})


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_types_of_stored_matrices_are_kept(kind: torch.dtype, imported: Import, adapter: Path) -> None:
    edit_tensors(adapter, lambda found: found.update({name: each.to(kind) for name, each in found.items()}))
    _, written = imported(adapter)
    theirs, ours = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, written))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) and ours[name].dtype == kind for name in ours)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80\x04", struct.pack("<Q", 1 << 62) + b"{}", struct.pack("<Q", 2) + b"{}" + b"x",
        struct.pack("<Q", 68) + b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}',
    ],
    ids=["empty", "pickle", "endless header", "more than promised", "overflow"],
)  # fmt: skip
def test_weights_that_are_no_safetensors_are_refused(data: bytes, imported: Import, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors (is not in safetensors|holds no matrices)"):
        imported(adapter)


def test_a_file_larger_than_any_adapter_of_the_model_is_refused_before_it_is_read(
    imported: Import, adapter: Path
) -> None:
    with (adapter / "adapter_model.safetensors").open("ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(ConfigError, match="has 1,073,741,824 bytes, more than the"):
        imported(adapter)


def test_pickled_weights_are_refused_by_name(imported: Import, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"not in safetensors format \(adapter_model\.bin\).*can run code"):
        imported(adapter)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(name: str, imported: Import, adapter: Path) -> None:
    (adapter / name).unlink()
    with pytest.raises(ConfigError, match=f"has no {name}"):
        imported(adapter)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(name: str, imported: Import, adapter: Path, tmp_path: Path) -> None:
    (adapter / name).rename(tmp_path / "elsewhere")
    (adapter / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=f"{name} is a symbolic link that leaves the folder"):
        imported(adapter)


def test_a_named_pipe_is_refused(imported: Import, adapter: Path) -> None:
    (adapter / "adapter_config.json").unlink()
    os.mkfifo(adapter / "adapter_config.json")
    with pytest.raises(ConfigError, match="not a regular file"):
        imported(adapter)


def test_an_adapter_that_changed_since_the_sweep_was_prepared_is_refused(
    make_sweep: Callable[..., RecipeSweep], adapter: Path, tmp_path: Path
) -> None:
    sweep = make_sweep(recipes=["bf16"], adapters=[{"name": NAME, "path": str(adapter)}])
    assert len(digest_inputs(sweep)["adapters"]) == 2
    import_into(tmp_path, sweep)
    edit_tensors(adapter, set_to(A, torch.ones(4, 64)))
    layout = SweepLayout(sweep.name, sweep.spec_hash)
    prepared = read_result(open_store(str(tmp_path / "results")), layout.prepare, PrepareResult)
    assert prepared is not None
    with pytest.raises(ConfigError, match=r"theirs/adapter_model\.safetensors was changed"):
        require_unchanged(prepared, sweep)


def test_an_adapter_is_read_from_an_object_store(
    make_sweep: Callable[..., RecipeSweep], adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {f"theirs/adapter/{path.name}": path.read_bytes() for path in adapter.iterdir()}
    with serving_s3(Bucket(objects)) as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        url = "s3://bucket/theirs/adapter"
        result, _ = import_into(tmp_path, make_sweep(recipes=["bf16"], adapters=[{"name": NAME, "url": url}]))
    assert result.source == url


def test_an_adapter_of_the_hub_is_pinned_by_commit_and_nothing_else_of_it_is_loaded(
    make_sweep: Callable[..., RecipeSweep], adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (adapter / "training_args.bin").write_bytes(b"pickle")
    repository = Repository(adapter)
    hub = Hub({"lab/adapter": repository})
    with serving(hub) as endpoint:
        import huggingface_hub.constants

        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        sweep = make_sweep(recipes=["bf16"], adapters=[{"name": NAME, "hub": "lab/adapter", "revision": "main"}])
        result, _ = import_into(tmp_path, sweep)
    assert (result.source, result.revision) == (f"lab/adapter@{repository.commit}", repository.commit)
    assert not any("training_args" in request or "README" in request for request in hub.requests)
