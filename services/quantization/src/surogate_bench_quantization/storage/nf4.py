"""NF4 storage is bitsandbytes' own layer, used as it is: bitsandbytes defines the format.

Source: QLoRA (arXiv:2305.14314): 4-bit NormalFloat in blocks of 64, the blocks' fp32 scales quantized to 8 bits in
blocks of 256 ("double quantization").
"""

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor, nn

NF4Linear = Linear4bit
"""The layer; nothing else imports it from bitsandbytes."""


def nf4_linear(linear: nn.Linear) -> Linear4bit:
    """Quantize a linear layer to NF4 with double quantization and bf16 compute, on the layer's own device.

    Args:
        linear: bf16 layer; it shares its bias with the result and is to be dropped.
    """
    layer = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    # On CPUs with AVX512-BF16 the first forward pass in eval mode repacks the weight for a kernel without a backward:
    # training on after a validation would silently lose the base's share of the gradient.
    layer.support_avx512bf16_for_cpu = False
    weight = Params4bit(
        linear.weight.detach(), requires_grad=False, compress_statistics=True, quant_type="nf4", module=layer
    )
    layer.weight = weight.to(linear.weight.device)
    layer.bias = linear.bias
    return layer


def nf4_dequantized(weight: Tensor) -> Tensor:
    """Put a weight into NF4 and expand it again: what bitsandbytes multiplies with.

    Args:
        weight: bf16 (out_features, in_features).

    Returns:
        bf16 (out_features, in_features), on the weight's device.
    """
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    stored = nf4_linear(plain).weight
    values: Tensor = dequantize_4bit(stored.data, stored.quant_state).to(torch.bfloat16)
    return values


def nf4_nbytes(layer: Linear4bit) -> int:
    """Bytes of an NF4 weight: packed values, 8-bit block scales, their fp32 scales and offset.

    All but the values are in ``quant_state``, which ``parameters()`` does not count. The lookup tables (NF4's 16
    values and 256 of the scales' 8-bit format) are included, since bitsandbytes keeps them once per layer.
    """
    state = layer.weight.quant_state
    tensors = (layer.weight, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
