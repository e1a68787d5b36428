"""Forward and backward passes as CUDA graphs.

A small model's micro-batch is thousands of kernels of a few microseconds each, more than Python can launch in time: the
GPU waits. A CUDA graph launches them all at once. It is bound to fixed shapes and addresses, so streams are padded to a
few sizes (:func:`padded`), each captured once into one shared pool of memory, and every batch is copied to where its
graph reads.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor

from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.model.attention import Segments
from surogate_bench_trainer.model.loss import IGNORED
from surogate_bench_trainer.model.passes import PlainPasses, packed_loss

_log = logging.getLogger(__name__)

TOKENS = 256
COUNTED = 512
SAMPLES = 64
"""Sizes that are captured are multiples of these."""

_MOST_GRAPHS = 32
"""Sizes beyond so many run as they come: each graph takes time to capture, and some memory."""


class Size(NamedTuple):
    """What a graph is captured for."""

    tokens: int
    counted: int
    samples: int
    longest: int
    """At least the longest sample's tokens; a power of two."""


@dataclass(slots=True)
class _Captured:
    """Where one size's graph reads and writes, and, from the second batch of that size on, the graph."""

    batch: PackedBatch
    segments: Segments
    weight: Tensor
    loss: Tensor
    graph: torch.cuda.CUDAGraph | None = None


class CapturedPasses:
    """Passes of a model on a GPU.

    The first batch of each size runs plainly, which also compiles and loads what it needs; the second one's operations
    are captured, and from then on replayed. What cannot be captured runs plainly to the end, and the log says so.

    Args:
        model: The base with its adapters, in training mode whenever this is called; parameters and their gradients
            stay where they are.
        generators: Random generators that its layers draw from, the default one aside.
    """

    def __init__(self, model: PeftModel, generators: Sequence[torch.Generator]) -> None:
        self._model = model
        self._plain = PlainPasses(model)
        self._generators = generators
        self._sizes: dict[Size, _Captured] = {}
        self._given_up = False
        # Gradients are accumulated on the stream of the first pass; capturing on the default one is not allowed.
        self._stream = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, batch: PackedBatch, weight: float) -> Tensor:
        """See :class:`Passes`."""
        caller = torch.cuda.current_stream(self._model.device)
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            loss = self._run(batch, weight)
        caller.wait_stream(self._stream)
        return loss

    def _run(self, batch: PackedBatch, weight: float) -> Tensor:
        size = size_of(batch)
        captured = self._sizes.get(size)
        if self._given_up or (captured is None and len(self._sizes) == _MOST_GRAPHS):
            return self._plain(batch, weight)
        stream = padded(batch, size)
        if captured is None:
            captured = self._sizes[size] = _place(stream, size, weight)
            return self._pass(captured)
        _fill(captured, stream, weight)
        if captured.graph is None:
            try:
                captured.graph, captured.loss = self._capture(captured)
            except RuntimeError as error:
                _log.warning("passes cannot be captured as a CUDA graph, and run kernel by kernel: %s", error)
                self._given_up = True
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
    """Smallest size that a batch, and what pads it, fits."""
    tokens = _multiple(batch.tokens, TOKENS)
    fillers = -(-(tokens - batch.tokens) // batch.lengths[0])
    return Size(
        tokens=tokens,
        counted=_multiple(batch.counted, COUNTED),
        samples=_multiple(len(batch.lengths) + fillers, SAMPLES),
        longest=max(TOKENS, 1 << (batch.lengths[0] - 1).bit_length()),
    )


def padded(batch: PackedBatch, size: Size) -> PackedBatch:
    """Fill a stream up with repetitions of its first, longest sample, none of whose tokens count.

    Repeated tokens have the activations that the first sample's have, and no gradient, so that no largest magnitude,
    and with it no scale of a recipe, changes.

    Args:
        batch: Longest sample first.
        size: From :func:`size_of`.
    """
    missing, longest = size.tokens - batch.tokens, batch.lengths[0]
    place = torch.arange(missing, device=batch.input_ids.device) % longest
    fillers = (longest,) * (missing // longest) + ((missing % longest,) if missing % longest else ())
    uncounted = batch.targets.new_full((size.counted - batch.counted,), IGNORED)
    return replace(
        batch,
        input_ids=torch.cat((batch.input_ids, batch.input_ids[:, place]), dim=1),
        position_ids=torch.cat((batch.position_ids, place[None]), dim=1),
        lengths=batch.lengths + fillers,
        predicting=torch.cat((batch.predicting, torch.zeros_like(uncounted))),
        targets=torch.cat((batch.targets, uncounted)),
    )


def _place(stream: PackedBatch, size: Size, weight: float) -> _Captured:
    device = stream.input_ids.device
    segments = Segments((size.longest,), (), _offsets(stream, size.samples))
    return _Captured(stream, segments, torch.tensor(weight, device=device), torch.zeros((), device=device))


def _fill(captured: _Captured, stream: PackedBatch, weight: float) -> None:
    for name in ("input_ids", "position_ids", "predicting", "targets"):
        getattr(captured.batch, name).copy_(getattr(stream, name))
    captured.segments.offsets.copy_(_offsets(stream, captured.segments.offsets.shape[0] - 1))
    captured.weight.fill_(weight)


def _offsets(stream: PackedBatch, samples: int) -> Tensor:
    """Where samples start, int32 (samples + 1,); those that there are not are empty, at the end."""
    lengths = [0, *stream.lengths, *[0] * (samples - len(stream.lengths))]
    return torch.tensor(lengths, device=stream.input_ids.device).cumsum(0, dtype=torch.int32)


def _multiple(number: int, unit: int) -> int:
    return max(1, -(-number // unit)) * unit
