"""A small random Qwen3, and what the tests do to it."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="session", autouse=True)
def as_in_training() -> None:
    """Multiply as a trainer does on this CPU."""
    ensure_fast_bf16_products()


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def make_model(device: torch.device) -> Callable[..., Qwen3ForCausalLM]:
    """Build the same bf16 model every time: 3 blocks, hidden 64, and no width equal to the vocabulary's."""

    def make(**changes: int) -> Qwen3ForCausalLM:
        shape = {
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": 101,
        }
        attention = "sdpa" if device.type == "cpu" else "eager"  # a GPU's SDPA sums in any order
        config = Qwen3Config(tie_word_embeddings=True, attn_implementation=attention, **(shape | changes))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Qwen3ForCausalLM(config).to(device, torch.bfloat16)

    return make


@pytest.fixture
def with_lora() -> Callable[[Qwen3ForCausalLM], PeftModel]:
    """Attach LoRA as a training loop does: the seed set immediately before."""

    def attach(model: Qwen3ForCausalLM) -> PeftModel:
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
        return get_peft_model(model, config)

    return attach
