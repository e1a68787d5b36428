"""Which checkpoint format holds which storage."""

from surogate_bench.recipes import Recipe, WeightStorage
from surogate_bench.stages.exports import ExportFormat
from surogate_bench_quantization.export.bitsandbytes_nf4 import BitsAndBytesNF4Format
from surogate_bench_quantization.export.checkpoint_format import CheckpointFormat
from surogate_bench_quantization.export.dequantized import DequantizedFormat
from surogate_bench_quantization.export.fp8_blocks import FP8BlocksFormat
from surogate_bench_quantization.export.nvfp4 import NVFP4Format


def checkpoint_format(recipe: Recipe, export_format: ExportFormat) -> CheckpointFormat:
    """Return the format for a recipe's weights: the one that holds them as they are stored, or bf16."""
    if export_format is ExportFormat.BF16:
        return DequantizedFormat(recipe.compute)
    match recipe.weight_storage:
        case WeightStorage.FP8_128X128:
            return FP8BlocksFormat(recipe.compute)
        case WeightStorage.NVFP4:
            return NVFP4Format(recipe.compute)
        case WeightStorage.NF4:
            return BitsAndBytesNF4Format()
        case WeightStorage.BF16:
            return DequantizedFormat(recipe.compute)
