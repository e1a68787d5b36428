"""An exported base as vLLM reads it, with a LoRA adapter, against transformers and PEFT."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from models.vllm_answers import TIE, Served, largest_gap, serve
from models.wide_model import save_wide_model
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from sweeps import small_document
from torch import Tensor
from transformers import AutoModelForCausalLM

from surogate_bench.contract import EXPORT_FILE
from surogate_bench.specs.model import ModelSpec
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.exports import ExportFormat, ExportRecord
from surogate_bench.stages.model_source import SHIPPED_MODELS, local_model_folder
from surogate_bench.stages.requests import ExportRequest
from surogate_bench_trainer.main import handle

pytestmark = pytest.mark.e2e

NATIVE = ("qfp8-bf16", "qfp4")
"""Recipes whose format vLLM reads."""
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
PROJECTIONS = [*FUSED["qkv_proj"], "o_proj", *FUSED["gate_up_proj"], "down_proj"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose widths are multiples of 128, with the tokenizer of the shipped one."""
    folder = tmp_path_factory.mktemp("model") / "wide"
    save_wide_model(folder, initializer_range=0.05)
    shipped = local_model_folder(ModelSpec(builtin=SHIPPED_MODELS[0]))
    assert shipped is not None
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((shipped / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter, large enough to change what is generated."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=PROJECTIONS, init_lora_weights=False)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16), config)
    path = tmp_path_factory.mktemp("adapter") / "random"
    model.save_pretrained(path)
    return path


def sweep_of(model: dict[str, str]) -> dict[str, Any]:
    return small_document(name="exported", model=model, recipes=["qbnb", "qfp8-bf16", "qfp4"])


def export_here(model: dict[str, str], recipe: str, export_format: ExportFormat, place: Path) -> Path:
    """Export as the command does, in this process."""
    output, work_dir = (place / f"{recipe}-{export_format}{end}" for end in ("", "-work"))
    work_dir.mkdir()
    threads = torch.get_num_threads()
    request = ExportRequest(
        sweep=parse_sweep(sweep_of(model)), store=str(place / "store"), recipe=recipe, output=output,
        format=export_format,
    )  # fmt: skip
    handle(request, work_dir)
    torch.set_num_threads(threads)
    return output


def export(model: dict[str, str], recipe: str, export_format: ExportFormat, place: Path) -> Path:
    """Run the command."""
    (place / "sweep.yaml").write_text(yaml.safe_dump(sweep_of(model)))
    output = place / f"{recipe}-{export_format}"
    command = [sys.executable, "-m", "surogate_bench_orchestrator", "export-base", "sweep.yaml", recipe]
    subprocess.run([*command, "--format", export_format, "--output", output], cwd=place, check=True)
    return output


def check_greedy(served: Served, checkpoint: Path, adapter: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Check each token of vLLM against the logits of transformers, without and with PEFT's adapter, up to ties."""
    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    base.load_state_dict(weights or {}, strict=False)
    assert largest_gap(base, served.answers["base"]) <= TIE
    adapted = PeftModel.from_pretrained(base, adapter)  # changes the base in place
    assert largest_gap(adapted, served.answers["adapter"]) <= TIE
    assert largest_gap(adapted, served.answers["base"]) > 4 * TIE


@dataclass(frozen=True)
class Exported:
    """An export, the same weights as bf16, and what vLLM made of the export."""

    checkpoint: Path
    dequantized: Path
    served: Served


@pytest.fixture(scope="module")
def exported(adapter: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """An export of each recipe, by its name: in bf16 by the command, native and in bf16 by its function."""
    place = tmp_path_factory.mktemp("exported")
    model = {"path": str(folder)}
    plain = export(model, "qbnb", ExportFormat.BF16, place)
    made = {"qbnb": (plain, plain)} | {
        recipe: (
            export_here(model, recipe, ExportFormat.NATIVE, place),
            export_here(model, recipe, ExportFormat.BF16, place),
        )
        for recipe in NATIVE
    }
    served = serve({recipe: (checkpoint, adapter) for recipe, (checkpoint, _) in made.items()}, place)
    return {recipe: Exported(*folders, served[recipe]) for recipe, folders in made.items()}


def test_a_bf16_export_is_served_by_vllm_with_lora(exported: dict[str, Exported], adapter: Path) -> None:
    found = exported["qbnb"]
    assert not found.served.weights  # no kernel was replaced
    check_greedy(found.served, found.checkpoint, adapter)


@pytest.mark.parametrize("recipe", NATIVE)
def test_vllm_reads_a_native_export_as_the_weights_of_training_and_serves_lora_on_it(
    recipe: str, exported: dict[str, Exported], adapter: Path
) -> None:
    found = exported[recipe]
    expected = load_file(found.dequantized / "model.safetensors")
    record = ExportRecord.model_validate_json((found.checkpoint / EXPORT_FILE).read_bytes())
    assert len(found.served.weights) == 2 * 4
    as_read = {}
    for name, weight in found.served.weights.items():
        parent, _, last = name.rpartition(".")
        parts = [f"{parent}.{part}" for part in FUSED.get(last, (last,))]
        rows = weight.split([len(expected[f"{part}.weight"]) for part in parts])
        for part, read in zip(parts, rows, strict=True):
            error = record.relative_errors.get(part, 0.0)
            check_weight(read, expected[f"{part}.weight"], error, exact=recipe != "qfp4")
            as_read[f"{part}.weight"] = read
    check_greedy(found.served, found.dequantized, adapter, as_read)


def check_weight(read: Tensor, expected: Tensor, error: float, *, exact: bool) -> None:
    """Compare a weight as vLLM read it with that of training, under the difference that the record states."""
    if exact:
        assert torch.equal(read, expected)
        return
    difference = float((read.double() - expected.double()).norm() / expected.double().norm())
    assert difference <= max(1.2 * error, 2**-14)  # a divisor's reciprocal moves few values by a last bit of bf16
