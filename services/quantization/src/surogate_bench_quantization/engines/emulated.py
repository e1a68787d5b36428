"""The engine that emulates low-precision products on any device."""

import torch
from typing_extensions import override

from surogate_bench.recipes import ComputePrecision, Recipe
from surogate_bench.recipes.precisions import EMULATED
from surogate_bench_quantization.engines.engine import Engine, EngineSession
from surogate_bench_quantization.engines.fp8.emulated import EmulatedFP8Products
from surogate_bench_quantization.engines.fp8.session import FP8Session
from surogate_bench_quantization.engines.nvfp4.emulated import EmulatedNVFP4Products
from surogate_bench_quantization.engines.nvfp4.session import NVFP4Session


class EmulatedEngine(Engine):
    """Exact on any device; a check on faster engines, and the only one without low-precision tensor cores."""

    name = EMULATED

    @override
    def start(self, recipe: Recipe, *, layers: int, device: torch.device, seed: int) -> EngineSession:
        match recipe.compute:
            case ComputePrecision.FP8_HYBRID:
                return FP8Session(recipe, EmulatedFP8Products, layers=layers, device=device)
            case ComputePrecision.NVFP4:
                return NVFP4Session(recipe, EmulatedNVFP4Products, device=device, seed=seed)
            case ComputePrecision.BF16:
                raise NotImplementedError("products in bf16 are not emulated: torch has them on every device")
