"""The merged weights. At most one file of the checkpoint is in memory at a time."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from surogate_bench.contract import ADAPTER_WEIGHTS_FILE
from surogate_bench_model_server.merging.plan import LayerMerge, merge_plan


def merged(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Add an adapter's update to a weight, in fp32, and round the sum once.

    Args:
        weight: (outputs, inputs), as the checkpoint has it; rounded to bf16 first, as training and serving load it.
        a: (rank, inputs).
        b: (outputs, rank).
        scale: Scale of the product.

    Returns:
        bf16 (outputs, inputs).
    """
    update = (b.float() @ a.float()) * scale
    return (weight.to(torch.bfloat16).float() + update).to(torch.bfloat16)


def write_merged(base: Path, adapter: Path, target: Path) -> tuple[int, int]:
    """Write the merged model into ``target``, which is complete or absent at any moment.

    Files that merging does not change are links to those of the base.

    Returns:
        How many weights of the adapted layers have changed, and how many these layers have: rounding to bf16 hides
        small updates.

    Raises:
        ConfigError: the adapter cannot be merged into this base.
        PermanentError: a file cannot be read.
    """
    plan = merge_plan(base, adapter)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))
    try:
        for path in base.iterdir():
            if path.is_file() and path.name not in plan:
                (partial / path.name).symlink_to(path.resolve())
        matrices = load_file(adapter / ADAPTER_WEIGHTS_FILE)
        counts = [_write_file(base / name, partial / name, layers, matrices) for name, layers in plan.items()]
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sum(changed for changed, _ in counts), sum(size for _, size in counts)


def _write_file(
    source: Path, target: Path, layers: Iterable[LayerMerge], matrices: dict[str, Tensor]
) -> tuple[int, int]:
    changed = size = 0
    with safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        metadata = file.metadata()
    for layer in layers:
        before = tensors[layer.weight]
        after = merged(before, matrices[layer.a], matrices[layer.b], layer.scale)
        changed += int((after != before.to(torch.bfloat16)).sum())
        size += after.numel()
        tensors[layer.weight] = after
    save_file(tensors, target, metadata=metadata)
    return changed, size
