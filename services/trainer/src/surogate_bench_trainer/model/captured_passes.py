"""Forward and backward passes as CUDA graphs.

A micro-batch of a small model is thousands of kernels of a few microseconds each, more than Python can launch without
leaving the GPU idle. A CUDA graph launches them all at once. It requires fixed shapes and addresses, so streams are
padded to a few sizes (:func:`padded`). Each size is captured once, all sizes share one memory pool, and every batch is
copied to the addresses that its graph reads.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from typing_extensions import override

from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.model.attention.packed import Segments
from surogate_bench_trainer.model.loss import IGNORED
from surogate_bench_trainer.model.passes import Passes, PlainPasses, packed_loss

_log = logging.getLogger(__name__)

TOKENS = 256
COUNTED = 512
SAMPLES = 64
"""Captured sizes are multiples of these numbers."""

_MOST_GRAPHS = 32
"""Further sizes run without a graph: each graph takes time to capture, and some memory."""


class Size(NamedTuple):
    """The shapes that a graph is captured for."""

    tokens: int
    counted: int
    samples: int
    longest: int
    """Upper bound of the longest sample's tokens; a power of two."""


@dataclass(slots=True)
class _Captured:
    """The tensors that one size's graph reads and writes, and, from the second batch of that size on, the graph."""

    batch: PackedBatch
    segments: Segments
    weight: Tensor
    loss: Tensor
    graph: torch.cuda.CUDAGraph | None = None


class CapturedPasses(Passes):
    """Passes of a model on a GPU, replayed from CUDA graphs.

    The first batch of each size runs without a graph, which also compiles and loads kernels. The operations of the
    second batch are captured, and replayed from then on. If capturing fails, all later batches run without graphs, and
    a warning is logged.

    Args:
        model: The base model with its adapters, in training mode for every call. The addresses of parameters and
            gradients must not change.
        generators: Random generators that its layers use, except the default generator.
    """

    def __init__(self, model: PeftModel, generators: Sequence[torch.Generator]) -> None:
        self._model = model
        self._plain = PlainPasses(model)
        self._generators = generators
        self._sizes: dict[Size, _Captured] = {}
        self._capture_failed = False
        # Gradients are accumulated on the stream of the first pass, and the default stream cannot be captured.
        self._stream = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def graphs(self) -> int:
        """Number of sizes that have been captured."""
        return sum(captured.graph is not None for captured in self._sizes.values())

    @override
    def __call__(self, batch: PackedBatch, weight: float) -> Tensor:
        caller = torch.cuda.current_stream(self._model.device)
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            loss = self._run(batch, weight)
        caller.wait_stream(self._stream)
        return loss

    def _run(self, batch: PackedBatch, weight: float) -> Tensor:
        size = size_of(batch)
        captured = self._sizes.get(size)
        if self._capture_failed or (captured is None and len(self._sizes) == _MOST_GRAPHS):
            return self._plain(batch, weight)
        stream = padded(batch, size)
        if captured is None:
            captured = self._sizes[size] = _allocate(stream, size, weight)
            return self._pass(captured)
        _copy_batch(captured, stream, weight)
        if captured.graph is None:
            try:
                captured.graph, captured.loss = self._capture(captured)
            except RuntimeError as error:
                _log.warning("running without CUDA graphs, because capture failed: %s", error)
                self._capture_failed = True
                return self._plain(batch, weight)
        captured.graph.replay()
        return captured.loss

    def _capture(self, captured: _Captured) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            loss = self._pass(captured)
        return graph, loss

    def _pass(self, captured: _Captured) -> Tensor:
        loss = packed_loss(self._model, captured.batch, captured.segments, captured.weight)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def size_of(batch: PackedBatch) -> Size:
    """Return the smallest size that fits a batch and its padding."""
    tokens = _round_up(batch.tokens, TOKENS)
    fillers = -(-(tokens - batch.tokens) // batch.lengths[0])
    return Size(
        tokens=tokens,
        counted=_round_up(batch.counted, COUNTED),
        samples=_round_up(len(batch.lengths) + fillers, SAMPLES),
        longest=max(TOKENS, 1 << (batch.lengths[0] - 1).bit_length()),
    )


def padded(batch: PackedBatch, size: Size) -> PackedBatch:
    """Pad a stream with repetitions of its first, longest sample, none of whose tokens count in the loss.

    Repeated tokens have the activations of the first sample and no gradient, so no amax and no scale of a recipe
    changes.

    Args:
        batch: The batch, longest sample first.
        size: The result of :func:`size_of`.
    """
    missing, longest = size.tokens - batch.tokens, batch.lengths[0]
    position = torch.arange(missing, device=batch.input_ids.device) % longest
    fillers = (longest,) * (missing // longest) + ((missing % longest,) if missing % longest else ())
    uncounted = batch.targets.new_full((size.counted - batch.counted,), IGNORED)
    return replace(
        batch,
        input_ids=torch.cat((batch.input_ids, batch.input_ids[:, position]), dim=1),
        position_ids=torch.cat((batch.position_ids, position[None]), dim=1),
        lengths=batch.lengths + fillers,
        predicting=torch.cat((batch.predicting, torch.zeros_like(uncounted))),
        targets=torch.cat((batch.targets, uncounted)),
    )


def _allocate(stream: PackedBatch, size: Size, weight: float) -> _Captured:
    device = stream.input_ids.device
    segments = Segments((size.longest,), (), _offsets(stream, size.samples))
    return _Captured(stream, segments, torch.tensor(weight, device=device), torch.zeros((), device=device))


def _copy_batch(captured: _Captured, stream: PackedBatch, weight: float) -> None:
    for name in ("input_ids", "position_ids", "predicting", "targets"):
        getattr(captured.batch, name).copy_(getattr(stream, name))
    captured.segments.offsets.copy_(_offsets(stream, captured.segments.offsets.shape[0] - 1))
    captured.weight.fill_(weight)


def _offsets(stream: PackedBatch, samples: int) -> Tensor:
    """Return the starts of samples, int32 (samples + 1,), with empty samples at the end."""
    lengths = [0, *stream.lengths, *[0] * (samples - len(stream.lengths))]
    return torch.tensor(lengths, device=stream.input_ids.device).cumsum(0, dtype=torch.int32)


def _round_up(number: int, unit: int) -> int:
    return max(1, -(-number // unit)) * unit
