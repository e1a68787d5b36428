"""Forward and backward products of every engine against float64 products of the oracle's codes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from surogate_bench.errors import UnsupportedRecipeError
from surogate_bench.machine.checks import Comparison, compare, engine_check_name
from surogate_bench.recipes import RECIPES, ComputePrecision, Recipe, WeightStorage
from surogate_bench.recipes.engines import implemented_engines
from surogate_bench.recipes.precisions import EMULATED, TRANSFORMER_ENGINE, EngineSupport
from surogate_bench_quantization import oracle
from surogate_bench_quantization.engines import Engine, select_engine
from surogate_bench_quantization.formats.elements import uniform_noise
from surogate_bench_quantization.storage.nf4 import nf4_dequantized
from surogate_bench_trainer.gpu_check.recorder import Finding, NotRun
from surogate_bench_trainer.gpu_check.settings import Setting
from surogate_bench_trainer.gpu_check.tensors import bare_linear, numbers, random_matrix

SEED = 11
ACCUMULATION = {"cpu": 2.0**-22, "cuda": 2.0**-19}
"""Error of sums of bf16 products, relative to the sum of magnitudes; tensor cores cut off what they cannot hold."""
FP8_ACCUMULATION = {"cpu": 2.0**-22, "cuda": 2.0**-11}
"""The same of FP8 products, which Hopper's tensor cores sum with about 14 bits; the limit for NVFP4 too, which has not
been measured."""
NEAR_DECISIONS = 0.02
"""Share of outputs that one near tie of 4/6, or of stochastic rounding, may change: the row of its token."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Operands:
    """What the products of one step start from, after quantization by the oracle."""

    inputs: Matrix
    weight: Matrix
    gradients: Matrix
    transposed_weight: Matrix
    """Weight of the backward product, (out_features, in_features) as ``weight``."""


def product_checks(setting: Setting) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield name and check of every recipe on every engine that implements it on some device.

    An engine that a sweep has to name is left out of the checks of a GPU that it cannot use: nothing is missing there.
    So is NVFP4 by Transformer Engine, whose noise is its own.
    """
    for recipe in RECIPES:
        for support in implemented_engines(recipe):
            if support.on_request and setting.on_gpu and not _can_run(recipe, support, setting.device):
                continue
            if support.engine == TRANSFORMER_ENGINE and recipe.is_stochastic:
                continue
            yield engine_check_name(recipe.name, support.engine), partial(_products, recipe, support.engine, setting)


def _can_run(recipe: Recipe, support: EngineSupport, device: torch.device) -> bool:
    if support.package and find_spec(support.package) is None:
        return False
    try:
        select_engine(recipe, device, support.engine)
    except UnsupportedRecipeError:
        return False
    return True


def _products(recipe: Recipe, engine_name: str, setting: Setting) -> Finding:
    try:
        engine = select_engine(recipe, setting.device, engine_name)
    except UnsupportedRecipeError as error:
        raise NotRun(str(error) if setting.on_gpu else f"no GPU: {error}") from error
    # For long sums cuBLAS may add partial sums that it has rounded to bf16.
    sizes = setting.products[:1] if recipe.compute is ComputePrecision.BF16 else setting.products
    return Finding(
        comparisons=tuple(
            comparison for size in sizes for comparison in compare_products(recipe, engine, setting.device, size)
        )
    )


def compare_products(
    recipe: Recipe, engine: Engine, device: torch.device, size: tuple[int, int, int]
) -> list[Comparison]:
    """Compare two steps: delayed scaling has a scale of 1 in the first, and the inputs' own in the second.

    Args:
        recipe: The recipe.
        engine: An engine that can run it on the device.
        device: The device.
        size: Rows, inputs and outputs.
    """
    rows, inputs_width, outputs_width = size
    weight = (random_matrix(outputs_width, inputs_width, seed=0) * 0.02).to(device)
    inputs = random_matrix(rows, inputs_width, seed=1).to(device)
    gradients = (random_matrix(rows, outputs_width, seed=2) * 1e-4).to(device)
    session = engine.start(recipe, layers=1, device=device, seed=SEED)
    layer = session.replace(bare_linear(weight)).train()
    noise = _noise_of_steps(recipe, gradients)
    on_tensor_cores = engine.name != EMULATED and recipe.compute is not ComputePrecision.BF16
    error = (FP8_ACCUMULATION if on_tensor_cores else ACCUMULATION)[device.type]
    limit = NEAR_DECISIONS if recipe.is_stochastic else 0.0
    found = []
    for step, drawn in enumerate(noise):
        outputs, input_gradients = _both(layer, inputs, gradients)
        by_history = engine.name == TRANSFORMER_ENGINE
        expected = _operands(recipe, (weight, inputs, gradients), step=step, noise=drawn, by_history=by_history)
        forward = _outside(outputs, expected.inputs, expected.weight.T, error)
        backward = _outside(input_gradients, expected.gradients, expected.transposed_weight, error)
        where = f"step {step + 1}, {'x'.join(map(str, size))}"
        found.append(compare(f"{where}: outputs outside of rounding and accumulation error", forward, limit))
        found.append(compare(f"{where}: the same of input gradients", backward, limit))
        session.end_of_optimizer_step()
    return found


def _noise_of_steps(recipe: Recipe, gradients: Tensor) -> list[NDArray[np.int16] | None]:
    if not recipe.is_stochastic:
        return [None, None]
    generator = torch.Generator(gradients.device).manual_seed(SEED)
    return [uniform_noise(gradients, generator).cpu().numpy() for _ in range(2)]


def _both(layer: torch.nn.Module, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    inputs = inputs.clone().requires_grad_()
    outputs = layer(inputs)
    (input_gradients,) = torch.autograd.grad(outputs, inputs, gradients)
    return outputs, input_gradients


def _operands(
    recipe: Recipe,
    tensors: tuple[Tensor, Tensor, Tensor],
    *,
    step: int,
    noise: NDArray[np.int16] | None,
    by_history: bool,
) -> Operands:
    """Quantize weight, inputs and gradients; ``by_history``: gradients have delayed scaling too."""
    weight, inputs, gradients = tensors
    stored, x, g = _stored(recipe, weight), numbers(inputs), numbers(gradients)
    match recipe.compute:
        case ComputePrecision.BF16:
            w = stored.astype(np.float64)
            return Operands(x.astype(np.float64), w, g.astype(np.float64), w)
        case ComputePrecision.FP8_HYBRID:
            w = _fp8(stored, _own_scale(stored, "e4m3"), "e4m3")
            scale = np.float32(1) if step == 0 else _own_scale(x, "e4m3")
            of_gradients = np.float32(1) if by_history and step == 0 else _own_scale(g, "e5m2")
            return Operands(_fp8(x, scale, "e4m3"), w, _fp8(g, of_gradients, "e5m2"), w)
        case ComputePrecision.NVFP4:
            w = _nvfp4(oracle.nvfp4(stored, height=16, four_over_six=True))
            return Operands(_nvfp4(oracle.nvfp4(x, four_over_six=True)), w, _nvfp4(oracle.nvfp4(g, noise=noise)), w)


def _stored(recipe: Recipe, weight: Tensor) -> oracle.Array:
    """Return the values of the stored weight; those of NF4 are bitsandbytes' own, which the formats check."""
    match recipe.weight_storage:
        case WeightStorage.BF16:
            return numbers(weight)
        case WeightStorage.FP8_128X128:
            return oracle.tiles_dequantized(numbers(weight))
        case WeightStorage.NVFP4:
            return oracle.nvfp4_dequantized(numbers(weight))
        case WeightStorage.NF4:
            return numbers(nf4_dequantized(weight))


def _own_scale(values: oracle.Array, element: str) -> oracle.Array:
    return oracle.current_scale(np.abs(values).max(), element)


def _fp8(values: oracle.Array, scale: oracle.Array | np.float32, element: str) -> Matrix:
    return oracle.scaled(values, np.asarray(scale), element).astype(np.float64) / np.float64(scale)


def _nvfp4(blocks: oracle.Blocks) -> Matrix:
    return blocks.products.astype(np.float64) * np.float64(blocks.tensor_scale)


def _outside(found: Tensor, left: Matrix, right: Matrix, accumulation: float) -> float:
    """Return the share of numbers that differ from the exact product by more than one rounding and the sums' error."""
    exact = left @ right
    half_a_step = np.ldexp(1.0, np.frexp(exact)[1] - 9)
    tolerance = half_a_step + accumulation * (np.abs(left) @ np.abs(right))
    within = np.abs(numbers(found).astype(np.float64) - exact) <= tolerance
    return float(1 - within.mean())
