"""Tiny random models of many architectures on disk, and a plain training loop with transformers and PEFT."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from surogate_bench.specs import RecipeSweep

SHAPE: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 1024, "initializer_range": 0.1,
    "eos_token_id": 0, "pad_token_id": 1, "bos_token_id": 0, "attention_dropout": 0.0,
}  # fmt: skip
"""Configuration of every tiny model: grouped queries, and a vocabulary larger than the tokenizer's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """A model of random weights."""

    kind: str
    """``model_type`` of transformers."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Configuration that differs from :data:`SHAPE`; None leaves a setting out."""
    dtype: torch.dtype = torch.bfloat16
    """Of the checkpoint."""
    shard_size: str = "1GB"

    def config(self) -> PreTrainedConfig:
        """Make the configuration."""
        settings = {name: value for name, value in (SHAPE | self.settings).items() if value is not None}
        config: PreTrainedConfig = CONFIG_MAPPING[self.kind](**settings)
        return config

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write model and tokenizer as transformers does. Norms and biases get values that matter."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(self.config(), dtype=torch.float32)
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1 and ("bias" in name or "norm" in name):
                    parameter.data += 0.1 * torch.randn_like(parameter)
        model.to(self.dtype).save_pretrained(folder, max_shard_size=self.shard_size)
        tokenizer.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class ReferenceStep:
    """What an optimizer step of the plain loop has seen."""

    loss: float
    grad_norm: float


def reference_training(
    sweep: RecipeSweep, data: Path, lora: LoraConfig, *, seed: int
) -> tuple[list[ReferenceStep], dict[str, Tensor]]:
    """Train with transformers' eager attention and PEFT, one unpadded sample at a time, all samples in every step.

    Args:
        sweep: Names model and hyper-parameters; a constant learning rate from the first step on.
        data: Lines of question and answer.
        lora: Adapters. A is drawn as surogate-bench documents: uniform within 1 / sqrt(inputs), in the model's order.
        seed: Of A.

    Returns:
        Each step, and the trained matrices (fp32) by PEFT's names.
    """
    training, folder = sweep.training, sweep.model.path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager")
    model = get_peft_model(base, lora)
    _draw(model, seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=training.learning_rate,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_epsilon,
        weight_decay=training.weight_decay,
    )
    samples = [_tokens(json.loads(line), tokenizer, sweep) for line in data.read_text("utf-8").splitlines()]
    model.train()
    steps = [_step(model, optimizer, samples, training.max_grad_norm) for _ in range(training.max_steps or 0)]
    return steps, {
        name.replace(".default", ""): parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _draw(model: PeftModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            bound = parameter.shape[1] ** -0.5
            parameter.data = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)


def _tokens(record: dict[str, str], tokenizer: PreTrainedTokenizerBase, sweep: RecipeSweep) -> tuple[Tensor, int]:
    prompt = tokenizer(sweep.data.prompt.replace("{question}", record["question"])).input_ids
    answer = tokenizer(sweep.data.completion.replace("{answer}", record["answer"]), add_special_tokens=False).input_ids
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return torch.tensor([prompt + answer + end]), len(prompt)


def _step(
    model: PeftModel, optimizer: torch.optim.Optimizer, samples: Sequence[tuple[Tensor, int]], max_norm: float
) -> ReferenceStep:
    counted = sum(tokens.shape[1] - prompt for tokens, prompt in samples)
    total = 0.0
    for tokens, prompt in samples:
        logits = model(input_ids=tokens, use_cache=False).logits[0, prompt - 1 : -1].float()
        loss = nn.functional.cross_entropy(logits, tokens[0, prompt:], reduction="sum") / counted
        loss.backward()
        total += float(loss.detach())
    norm = nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return ReferenceStep(total, float(norm))
