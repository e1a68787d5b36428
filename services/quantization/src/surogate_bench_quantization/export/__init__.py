"""Stored weights as the tensors of checkpoint formats that other software loads, one module per format."""

from surogate_bench_quantization.export.checkpoint_format import CheckpointFormat, ExportedLayers
from surogate_bench_quantization.export.selection import checkpoint_format

__all__ = ["CheckpointFormat", "ExportedLayers", "checkpoint_format"]
