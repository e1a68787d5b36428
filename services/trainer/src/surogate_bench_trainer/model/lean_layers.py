"""RMS norm and rotary embedding with fewer passes over memory than those of transformers, by the same formulas.

Both have hand-written backward passes: the norms' weights are frozen, and the gradient of a rotation is the opposite
rotation. Sums and products are computed in fp32 and rounded once, where transformers rounds intermediate results.
"""

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from surogate_bench_quantization.fusion import fused

_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Architectures whose RMSNorm and apply_rotary_pos_emb are the standard formulas."""


class _RMSNorm(torch.autograd.Function):
    """w x / sqrt(mean(x^2) + eps) over the last dimension (Zhang and Sennrich, 2019), with constant w."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, epsilon: float) -> Tensor:  # noqa: ANN401
        outputs, normalized, scale = _rms_norm(inputs, weight, epsilon)
        ctx.save_for_backward(normalized, scale, weight)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return _rms_norm_backward(gradient, *ctx.saved_tensors), None, None


@fused
def _rms_norm(inputs: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    values = inputs.to(torch.float32, copy=True)
    norm = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    scale = norm.square_().mul_(1.0 / values.shape[-1]).add_(epsilon).rsqrt_()
    normalized = values.mul_(scale)
    return (normalized * weight.float()).to(inputs.dtype), normalized, scale


@fused
def _rms_norm_backward(gradient: Tensor, normalized: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    weighted = gradient.to(torch.float32, copy=True).mul_(weight)
    projection = (weighted * normalized).sum(-1, keepdim=True).mul_(-1.0 / normalized.shape[-1])
    return weighted.addcmul_(normalized, projection).mul_(scale).to(gradient.dtype)


class _Rotation(torch.autograd.Function):
    """x cos + rotate_half(x) sin (Su et al., 2021), with the halves' signs folded into sin."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(cos, signed_sin)
        return _rotate(inputs, cos, signed_sin, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        cos, signed_sin = ctx.saved_tensors
        return _rotate(gradient, cos, signed_sin, -1), None, None


@fused
def _rotate(inputs: Tensor, cos: Tensor, signed_sin: Tensor, sign: int) -> Tensor:
    return torch.addcmul(inputs * cos, _swap_halves(inputs), signed_sin, value=sign)


def _swap_halves(tensor: Tensor) -> Tensor:
    half = tensor.shape[-1] // 2
    return torch.cat((tensor[..., half:], tensor[..., :half]), dim=-1)


def rotate_queries_and_keys(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys, as a replacement of a model's ``apply_rotary_pos_emb``.

    Args:
        q: (1, heads, T, head size).
        k: (1, kv heads, T, head size).
        cos: (1, T, head size), with two equal halves.
        sin: The same shape as ``cos``.
        unsqueeze_dim: Dimension of the heads.
    """
    half = sin.shape[-1] // 2
    signed_sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1).unsqueeze(unsqueeze_dim)
    cos = cos.unsqueeze(unsqueeze_dim)
    rotated_q: Tensor = _Rotation.apply(q, cos, signed_sin)  # type: ignore[no-untyped-call]
    rotated_k: Tensor = _Rotation.apply(k, cos, signed_sin)  # type: ignore[no-untyped-call]
    return rotated_q, rotated_k


def make_lean(model: PreTrainedModel) -> None:
    """Replace the layers of a model of a known architecture; leave any other model unchanged.

    transformers resolves ``apply_rotary_pos_emb`` in the architecture's module, so it is replaced there, for the whole
    process.
    """
    if model.config.model_type not in _MODEL_TYPES:
        return
    vars(sys.modules[type(model).__module__])["apply_rotary_pos_emb"] = rotate_queries_and_keys
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_normalize, module)


def _normalize(norm: Any, inputs: Tensor) -> Tensor:  # noqa: ANN401 - transformers is untyped
    outputs: Tensor = _RMSNorm.apply(inputs, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
    return outputs
