"""vLLM serves adapters of architectures with other layers than Llama's as transformers and PEFT compute them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from models.tiny_models import TinyModel
from models.vllm_answers import TIE, Served, largest_gap, serve
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from surogate_bench.specs.model import ModelSpec
from surogate_bench.stages.model_source import SHIPPED_MODELS, local_model_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

SETTINGS = {"vocab_size": 4096, "initializer_range": 0.15}
MODELS = [
    TinyModel(kind="phi3", settings=SETTINGS),  # fused projections
    TinyModel(kind="phi", settings=SETTINGS | {"num_key_value_heads": 2}),  # vLLM's backend of transformers
    TinyModel(
        kind="gpt_neox", settings=SETTINGS | {"num_key_value_heads": None}
    ),  # the same, with fused projections in another order
    TinyModel(
        kind="opt",
        settings=SETTINGS | {"num_key_value_heads": None, "ffn_dim": 96, "word_embed_proj_dim": 64, "init_std": 0.15},
    ),
]


@dataclass(frozen=True)
class Adapted:
    """A model with its adapter, by transformers and PEFT, and what vLLM made of the two."""

    model: PeftModel
    served: Served


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapted]:
    """Every model, by its architecture."""
    folder = tmp_path_factory.mktemp("architectures")
    models = {model.kind: save_with_adapter(model, folder / model.kind) for model in MODELS}
    served = serve({kind: (folder / kind / "model", folder / kind / "adapter") for kind in models}, folder)
    return {kind: Adapted(model, served[kind]) for kind, model in models.items()}


def save_with_adapter(model: TinyModel, folder: Path) -> PeftModel:
    shipped = local_model_folder(ModelSpec(builtin=SHIPPED_MODELS[0]))
    model.save(folder / "model", AutoTokenizer.from_pretrained(shipped))
    base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        lora = LoraConfig(
            r=8,
            lora_alpha=8,
            target_modules="all-linear",
            use_rslora=True,
            rank_pattern={r"layers\.0\..*": 4},
            alpha_pattern={r"layers\.1\..*": 4},
            init_lora_weights=False,
        )
        adapted = get_peft_model(base, lora)
    adapted.save_pretrained(folder / "adapter")
    return adapted


@pytest.mark.parametrize("kind", [model.kind for model in MODELS])
def test_an_adapter_on_all_linear_layers_is_served_with_its_ranks_and_scales(
    adapted: dict[str, Adapted], kind: str
) -> None:
    model, answers = adapted[kind].model, adapted[kind].served.answers
    assert largest_gap(model, answers["adapter"]) <= TIE
    assert largest_gap(model, answers["base"]) > 4 * TIE
    with model.disable_adapter():
        assert largest_gap(model, answers["base"]) <= TIE
