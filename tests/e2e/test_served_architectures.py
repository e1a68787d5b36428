"""vLLM serves adapters of architectures with other layers than Llama's as transformers and PEFT compute them."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import TinyModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm_answers import TIE, largest_gap, serve

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


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_an_adapter_on_all_linear_layers_is_served_with_its_ranks_and_scales(model: TinyModel, tmp_path: Path) -> None:
    shipped = local_model_folder(ModelSpec(builtin=SHIPPED_MODELS[0]))
    model.save(tmp_path / "model", AutoTokenizer.from_pretrained(shipped))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
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
    adapted.save_pretrained(tmp_path / "adapter")
    served = serve(tmp_path / "model", tmp_path / "adapter", tmp_path)
    assert largest_gap(adapted, served.answers["adapter"]) <= TIE
    assert largest_gap(adapted, served.answers["base"]) > 4 * TIE
    with adapted.disable_adapter():
        assert largest_gap(adapted, served.answers["base"]) <= TIE
