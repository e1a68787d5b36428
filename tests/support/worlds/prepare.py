"""The prepare stage on models that were changed, and what it says about them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from sweeps import MakeSweep
from torch import Tensor

from surogate_bench.errors import ConfigError
from surogate_bench.results import PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.prepare import prepare_stage

Tensors = dict[str, Tensor]


def prepare(sweep: RecipeSweep, tmp_path: Path) -> PrepareResult:
    request = PrepareRequest(sweep=sweep, store=str(tmp_path / "store"))
    (tmp_path / "work").mkdir(exist_ok=True)
    prepare_stage(request, tmp_path / "work")
    manifest = read_manifest(open_store(request.store), request.layout.prepare)
    assert manifest is not None
    return manifest.require_result(PrepareResult)


def refusal(make_sweep: MakeSweep, folder: Path, tmp_path: Path, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(make_sweep(model={"path": str(folder)}, **changes), tmp_path)
    assert "trust_remote_code" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def rewrite_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def split_into_shards(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
