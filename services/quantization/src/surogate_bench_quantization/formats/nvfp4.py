"""NVFP4: E2M1 elements, one E4M3 scale per block of 16 (or 16x16) values, one fp32 scale per tensor.

With A the tensor's and b a block's largest magnitude, S = 2688 / A (2688 = 6 * 448) maps the tensor so that block
scales fit E4M3: d = E4M3(b / 6 * S), element = E2M1(x * S / d), and x stands for element * d * A / 2688.

Four-over-six ("4/6") quantizes each block twice, with its largest value at 6 and at 4 (d4 = E4M3(b / 4 * S)), and keeps
the 4 if that gives a strictly smaller squared error. S is then 1536 / A (6 * 256), so that 1.5 * d still fits.
E2M1's spacing is coarsest between 4 and 6; a block scaled to 4 avoids it.

Blocks have to be whole: a matrix that they do not divide is padded with zeros (:func:`padded`), as in 4/6's published
reference implementation. Zeros leave every amax, scale and error as it is, and add nothing to a product.

Sources: NVIDIA, "Pretraining Large Language Models with NVFP4" (arXiv:2509.25149); Cook et al., "Four Over Six"
(arXiv:2512.02010); Transformer Engine's NVFP4 recipe. The order of the fp32 operations is that of 4/6's published
reference implementation, so that ties are decided alike too.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from surogate_bench_quantization.formats.elements import E2M1, E4M3, round_nearest_, round_stochastic_e2m1_
from surogate_bench_quantization.fusion import SLAB, fused, slabs

BLOCK = 16
_FP32_MAX = torch.finfo(torch.float32).max
_RANGE = 6.0 * 448.0
_RANGE_4_6 = 6.0 * 256.0


class NVFP4Tensor(NamedTuple):
    """A quantized matrix of shape (rows, columns)."""

    products: Tensor
    """bf16 (rows, columns): element * block scale, exact because it has at most 6 significant bits."""
    block_scales: Tensor
    """fp32 values that E4M3 holds: (rows, columns / 16), or (rows / 16, columns / 16) for 16x16 blocks."""
    tensor_scale: Tensor
    """fp32: A / 2688, or A / 1536 under 4/6; 0-dim, or (rows, 1) where every row is quantized by itself.
    ``products * tensor_scale`` is the dequantized matrix."""


def padded(matrix: Tensor, *, rows: bool = False) -> Tensor:
    """Pad a matrix with zeros to whole blocks; the same tensor where they are whole.

    Args:
        matrix: (rows, columns).
        rows: Pad rows too, for square blocks and for products along the rows.
    """
    missing = (-matrix.shape[1] % BLOCK, -matrix.shape[0] % BLOCK if rows else 0)
    return pad(matrix, (0, missing[0], 0, missing[1])) if any(missing) else matrix


def quantize_rows(matrix: Tensor, *, four_over_six: bool, noise: Tensor | None = None) -> NVFP4Tensor:
    """Quantize in blocks of 1x16 along the rows.

    Args:
        matrix: (rows, columns), bf16 or fp32, contiguous, columns a multiple of 16.
        four_over_six: Choose between 4 and 6 per block; otherwise 6 always.
        noise: Round stochastically with this noise (see ``uniform_noise``), shape of ``matrix``; without 4/6 only.
            Round to nearest if None.
    """
    rows, columns = matrix.shape
    block_amax = _block_amax(matrix)
    products, scales, tensor_scale = _quantize_blocks(
        matrix.view(-1, BLOCK),
        block_amax,
        block_amax.amax(),
        four_over_six=four_over_six,
        noise=None if noise is None else noise.view(-1, BLOCK),
    )
    return NVFP4Tensor(products.view(rows, columns), scales.view(rows, columns // BLOCK), tensor_scale)


def quantize_each_row(matrix: Tensor) -> NVFP4Tensor:
    """Quantize every row as :func:`quantize_rows` quantizes a matrix of that row alone, with 4/6.

    A row of a batch then never depends on the other rows.

    Args:
        matrix: (rows, columns), bf16 or fp32, contiguous, columns a multiple of 16.
    """
    rows, columns = matrix.shape
    block_amax = _block_amax(matrix)
    largest = block_amax.view(rows, -1).amax(dim=1, keepdim=True)
    products, scales, tensor_scales = _quantize_blocks(
        matrix.view(-1, BLOCK),
        block_amax,
        largest.repeat_interleave(columns // BLOCK, dim=0),
        four_over_six=True,
        noise=None,
    )
    tensor_scale = tensor_scales.view(rows, -1)[:, :1]
    return NVFP4Tensor(products.view(rows, columns), scales.view(rows, columns // BLOCK), tensor_scale)


def quantize_squares(matrix: Tensor, *, four_over_six: bool) -> NVFP4Tensor:
    """Quantize in blocks of 16x16, so that the transpose quantizes to the transpose.

    Args:
        matrix: (rows, columns), bf16 or fp32, both multiples of 16.
        four_over_six: Choose between 4 and 6 per block; otherwise 6 always.
    """
    rows, columns = matrix.shape
    grid = (rows // BLOCK, columns // BLOCK)
    blocks = matrix.view(grid[0], BLOCK, grid[1], BLOCK).permute(0, 2, 1, 3).reshape(-1, BLOCK * BLOCK)
    block_amax = blocks.abs().amax(dim=1, keepdim=True).float()
    products, scales, tensor_scale = _quantize_blocks(
        blocks, block_amax, block_amax.amax(), four_over_six=four_over_six, noise=None
    )
    products = products.view(*grid, BLOCK, BLOCK).permute(0, 2, 1, 3).reshape(rows, columns)
    return NVFP4Tensor(products, scales.view(grid), tensor_scale)


def _block_amax(matrix: Tensor) -> Tensor:
    """Return the fp32 amax of each 1x16 block of (rows, columns): (rows * columns / 16, 1)."""
    rows, columns = matrix.shape
    block_amax = torch.empty(matrix.numel() // BLOCK, 1, dtype=torch.float32, device=matrix.device)
    for part, target in slabs(matrix, block_amax.view(rows, -1), rows=SLAB // columns):
        _row_amax(part, target)
    return block_amax


def _quantize_blocks(
    blocks: Tensor, block_amax: Tensor, tensor_amax: Tensor, *, four_over_six: bool, noise: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize (blocks, size) given each block's fp32 amax (blocks, 1); returns the fields of ``NVFP4Tensor``.

    ``tensor_amax`` is 0-dim, or (blocks, 1) where blocks belong to several tensors.
    """
    reach = _RANGE_4_6 if four_over_six else _RANGE
    encode_scale = torch.full_like(tensor_amax, reach).div_(tensor_amax)
    encode_scale.clamp_max_(_FP32_MAX)  # a tensor of zeros has amax 0
    decode_scale = encode_scale.reciprocal()
    # A GPU would multiply by a number's reciprocal instead of dividing by it.
    scales = (block_amax / torch.full_like(tensor_amax, E2M1.max_value)).mul_(encode_scale)
    products = torch.empty_like(blocks, dtype=torch.bfloat16)
    tensors = (blocks, scales, products) if noise is None else (blocks, scales, products, noise)
    if tensor_amax.dim():
        tensors = (*tensors, tensor_amax, decode_scale)
    for part, scale, target, *further in slabs(*tensors, rows=SLAB // blocks.shape[1]):
        if four_over_six:
            amax, factor = further or (tensor_amax, decode_scale)
            _round_four_over_six(part, scale, amax, factor, target)
        else:
            _round_to_six(part, scale, decode_scale, target, *further)
    return products, scales, tensor_amax / torch.full_like(tensor_amax, reach)


@fused
def _row_amax(matrix: Tensor, block_amax: Tensor) -> None:
    """Write the amax of each 1x16 block of (rows, columns) to (rows, columns / 16)."""
    if matrix.is_cuda:
        block_amax.copy_(matrix.view(matrix.shape[0], -1, BLOCK).abs().amax(dim=2))
        return
    # On a CPU pooling is several times as fast as a reduction of so few elements.
    pooled = torch.nn.functional.max_pool1d(matrix.abs().float().unsqueeze(0), BLOCK)
    block_amax.copy_(pooled.squeeze(0))


@fused
def _round_to_six(
    blocks: Tensor, scales: Tensor, decode_scale: Tensor, products: Tensor, noise: Tensor | None = None
) -> None:
    """Write element * block scale to ``products``; ``scales`` holds b / 6 * S, and then the rounded scale."""
    products.copy_(_scaled_elements(blocks.float(), round_nearest_(scales, E4M3), decode_scale, noise))


@fused
def _round_four_over_six(
    blocks: Tensor, scales: Tensor, tensor_amax: Tensor, decode_scale: Tensor, products: Tensor
) -> None:
    """Do the same as :func:`_round_to_six`, under the better scale of each block."""
    assert blocks.shape[1] in (BLOCK, BLOCK * BLOCK)  # noqa: S101 - gives the compiler the length of the sums
    products.copy_(_four_over_six(blocks.float(), scales, tensor_amax, decode_scale))


def _four_over_six(blocks: Tensor, scales: Tensor, tensor_amax: Tensor, decode_scale: Tensor) -> Tensor:
    """Element * block scale under the better scale of each block; ``scales`` holds b / 6 * S, and then the choice."""
    scales_4 = round_nearest_(scales * 1.5, E4M3)
    scales_6 = round_nearest_(scales, E4M3)
    products_6 = _scaled_elements(blocks, scales_6, decode_scale, None)
    products_4 = _scaled_elements(blocks, scales_4, decode_scale, None)
    error_6 = _squared_error(products_6, tensor_amax, blocks)
    error_4 = _squared_error(products_4, tensor_amax, blocks)
    choose_4 = (error_4 < error_6).to(torch.float32)
    # Blending with a 0/1 factor is exact here and several times as fast as torch.where with a broadcast condition.
    scales_6.addcmul_(scales_4.sub_(scales_6), choose_4)
    return products_6.addcmul_(products_4.sub_(products_6), choose_4)


def _scaled_elements(blocks: Tensor, scales: Tensor, decode_scale: Tensor, noise: Tensor | None) -> Tensor:
    """Round fp32 blocks to E2M1 under the given block scales; returns element * scale, zero where the scale is."""
    factor = torch.ones_like(scales).div_(scales * decode_scale)
    factor.masked_fill_(scales == 0, 0.0)
    elements = blocks * factor
    if noise is None:
        # A block scale in E4M3's subnormal range may be rounded down far enough for elements beyond 6.
        round_nearest_(elements.clamp_(-E2M1.max_value, E2M1.max_value), E2M1)
    else:
        round_stochastic_e2m1_(elements, noise)
    return elements.mul_(scales)


def _squared_error(products: Tensor, tensor_amax: Tensor, blocks: Tensor) -> Tensor:
    error = (products * tensor_amax).div_(_RANGE_4_6).sub_(blocks).square_()
    return error.sum(dim=1, keepdim=True)
