"""LoRA as PEFT defines it, computed as recipes require: bf16 products with fp32 master weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import Linear as PeftLoraLinear
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from surogate_bench.contract import ADAPTER_WEIGHTS_FILE
from surogate_bench.specs.lora import LoraSpec
from surogate_bench_trainer.model.coverage import linear_paths, shortest_names

ADAPTER = "default"
"""Name of the only adapter in PEFT."""


class _LoraUpdate(torch.autograd.Function):
    """base + scaling (x A^T) B^T, in the type of x.

    One autograd node instead of PEFT's dozen operations, whose dispatch costs more than their arithmetic at small
    widths; and PEFT would multiply in fp32. Gradients of A and B are products in the type of x, accumulated in fp32.
    """

    @staticmethod
    def forward(ctx: Any, base: Tensor, inputs: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:  # noqa: ANN401
        rows = inputs.reshape(-1, inputs.shape[-1])
        a, b = a.to(rows.dtype), (b * scaling).to(rows.dtype)
        hidden = rows @ a.t()
        ctx.save_for_backward(rows, hidden, a, b)
        ctx.scaling = scaling
        return torch.addmm(base.reshape(-1, base.shape[-1]), hidden, b.t()).view(base.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:  # noqa: ANN401
        rows, hidden, a, b = ctx.saved_tensors
        outer = gradient.reshape(-1, gradient.shape[-1])
        inner = outer @ b
        grad_b = (outer.t() @ hidden).float().mul_(ctx.scaling)
        grad_a = (inner.t() @ rows).float()
        grad_inputs = (inner @ a).view(*gradient.shape[:-1], -1) if ctx.needs_input_grad[1] else None
        return gradient, grad_inputs, grad_a, grad_b, None


class LoraLinear(PeftLoraLinear):  # type: ignore[misc]
    """PEFT's LoRA layer with a faster forward pass."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return base output plus update: (..., in_features) to (..., out_features)."""
        base = self.base_layer(inputs)
        a, b = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        dropped = self.lora_dropout[ADAPTER](inputs)
        outputs: Tensor = _LoraUpdate.apply(base, dropped, a, b, self.scaling[ADAPTER])  # type: ignore[no-untyped-call]
        return outputs


def attach_lora(model: PreTrainedModel, spec: LoraSpec, *, base_model: str, seed: int) -> PeftModel:
    """Freeze a model and add adapters to it.

    A is drawn in fp32 from PEFT's distribution (uniform within 1 / sqrt(in_features)) with a separate generator, layer
    by layer, so the same seed gives the same adapters whatever recipe is applied to the base model.

    Args:
        model: The base model, with or without a recipe applied.
        spec: Ranks, scales, dropout and target layers, which are layers of the model.
        base_model: Recorded as ``base_model_name_or_path``.
        seed: Seed of A.
    """
    layers = linear_paths(model)
    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=shortest_names([layer for layer in layers if spec.targets(layer)], layers),
        use_rslora=spec.use_rslora,
        rank_pattern=dict(spec.rank_pattern),
        alpha_pattern=dict(spec.alpha_pattern),
        task_type="CAUSAL_LM",
    )
    config._register_custom_module({nn.Linear: LoraLinear})
    adapted = get_peft_model(model, config)
    config.base_model_name_or_path = base_model
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora_layers(adapted):
            a = layer.lora_A[ADAPTER].weight
            bound = a.shape[1] ** -0.5
            a.copy_(torch.empty(a.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator))
            layer.lora_B[ADAPTER].weight.zero_()
    return adapted


def load_lora(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Freeze a model and add saved adapters to it, computed as those of :func:`attach_lora`.

    Args:
        model: The base model.
        folder: Has ``adapter_config.json`` and ``adapter_model.safetensors``, of any ranks and scales.

    Raises:
        AssertionError: the adapters belong to another model.
    """
    config = LoraConfig.from_pretrained(folder)
    config.base_model_name_or_path = None  # a public name, and PEFT would warn that it is not the folder's
    config._register_custom_module({nn.Linear: LoraLinear})
    adapted = get_peft_model(model, config)
    loaded = set_peft_model_state_dict(adapted, load_file(folder / ADAPTER_WEIGHTS_FILE), adapter_name=ADAPTER)
    if loaded.unexpected_keys or any("lora_" in name for name in loaded.missing_keys):
        raise AssertionError(f"{folder} does not fit the model")
    return adapted


def lora_layers(model: nn.Module) -> Iterator[LoraLinear]:
    """Yield the layers with LoRA in the model's order."""
    return (module for module in model.modules() if isinstance(module, LoraLinear))
