"""Selection of the class that holds a weight in a storage format."""

from collections.abc import Callable, Mapping

from torch import Tensor

from surogate_bench.recipes import WeightStorage
from surogate_bench_quantization.storage.bf16 import BF16Weight
from surogate_bench_quantization.storage.fp8_tiles import FP8TilesWeight
from surogate_bench_quantization.storage.frozen_weight import FrozenWeight
from surogate_bench_quantization.storage.nvfp4 import NVFP4Weight

STORAGE_CLASSES: Mapping[WeightStorage, Callable[[Tensor], FrozenWeight]] = {
    WeightStorage.BF16: BF16Weight,
    WeightStorage.FP8_128X128: FP8TilesWeight,
    WeightStorage.NVFP4: NVFP4Weight,
}


def freeze(weight: Tensor, storage: WeightStorage) -> FrozenWeight:
    """Put a weight into a storage format.

    Args:
        weight: bf16 (out_features, in_features).
        storage: Any format but NF4, which bitsandbytes keeps in a layer of its own.

    Raises:
        KeyError: NF4.
    """
    return STORAGE_CLASSES[storage](weight)
