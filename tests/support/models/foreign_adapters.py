"""Foreign adapters made with PEFT itself on a model's folder, and their import."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from surogate_bench.layout import SweepLayout
from surogate_bench.results import ImportResult, PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.local_inputs import digest_inputs
from surogate_bench.stages.publication import fetch_stage, new_manifest, publish_stage
from surogate_bench.stages.requests import ImportRequest, PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.main import handle

NAME = "theirs"
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
Import = Callable[..., tuple[ImportResult, Path]]
"""Imports an adapter from a folder; keyword arguments change the sweep."""
TARGETS = ["q_proj", "v_proj", "down_proj"]


def make_adapter(model: Path, folder: Path, **settings: Any) -> Path:
    """Save an adapter with random matrices; settings are those of PEFT's LoraConfig."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some settings are unwise on purpose
        adapted = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(folder)
    return folder


def logits(model: Path, adapter: Path) -> Tensor:
    """Logits of the toy model with an adapter, in fp32, through PEFT."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted: nn.Module = PeftModel.from_pretrained(base, str(adapter))
    with torch.no_grad():
        found: Tensor = adapted(torch.arange(2, 34).unsqueeze(0)).logits
    return found


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of adapter_config.json."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of adapter_model.safetensors in place."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)


def import_into(tmp_path: Path, sweep: RecipeSweep) -> tuple[ImportResult, Path]:
    """Import the adapter of a sweep that was prepared; gives the result and the folder of the imported files."""
    store = open_store(str(tmp_path / "results"))
    layout = SweepLayout(sweep.name, sweep.spec_hash)
    prepared = PrepareResult(data={}, model_source="toy", model_in_store=False, inputs=digest_inputs(sweep))
    empty = tmp_path / "empty"
    empty.mkdir(exist_ok=True)
    manifest = new_manifest(PrepareRequest(sweep=sweep, store=store.url), prepared)
    publish_stage(store, layout.prepare, empty, manifest)
    handle(ImportRequest(sweep=sweep, store=store.url, adapter=NAME), tmp_path / "work")
    manifest = fetch_stage(store, layout.train(NAME), tmp_path / "fetched")
    assert (manifest.stage, manifest.run) == ("import", NAME)
    return manifest.require_result(ImportResult), tmp_path / "fetched" / "adapter"
