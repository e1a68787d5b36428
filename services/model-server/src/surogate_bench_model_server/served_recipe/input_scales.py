"""Scales of FP8 inputs while vLLM serves: each adapter has its own, stored by its training or measured.

A batch may hold tokens of several adapters. They are grouped by adapter, and each group is quantized and multiplied by
itself, with that adapter's scales, as a micro-batch is in training.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import override

from surogate_bench.contract import INPUT_SCALES_FILE
from surogate_bench_model_server.served_recipe.settings import CALIBRATED, CALIBRATING
from surogate_bench_quantization.engines.forward import InputScale
from surogate_bench_quantization.formats.elements import E4M3
from surogate_bench_quantization.formats.fp8 import amax

_FP32_MAX = torch.finfo(torch.float32).max


@dataclass(frozen=True, slots=True)
class ProjectionScale:
    """The input scale of one projection."""

    scale: InputScale
    number: float
    """Its value, to compare."""

    @classmethod
    def of(cls, value: Tensor) -> "ProjectionScale":
        """Make it from a 0-dim fp32 tensor."""
        return cls(InputScale.of(value), float(value))


@dataclass(slots=True)
class AdapterScales:
    """Input scales of one adapter, by projection."""

    known: dict[str, ProjectionScale] = field(default_factory=dict)

    def scales_for(self, inputs: Tensor, projections: Sequence[str]) -> list[ProjectionScale]:
        """Return, for each projection, the scale with which inputs (tokens, in_features) are quantized."""
        del inputs  # only measured scales depend on them
        return [self.known[name] for name in projections]


@dataclass(slots=True)
class UnitScales(AdapterScales):
    """Scales of 1, which delayed scaling starts from: for tokens without an adapter, and while vLLM warms up."""

    @override
    def scales_for(self, inputs: Tensor, projections: Sequence[str]) -> list[ProjectionScale]:
        one = ProjectionScale.of(torch.ones((), dtype=torch.float32, device=inputs.device))
        return [one for _ in projections]


@dataclass(slots=True)
class MeasuredScales(AdapterScales):
    """Inputs are measured: quantized with current scaling, and their largest magnitude kept."""

    margin: int = 0
    largest: dict[str, Tensor] = field(default_factory=dict)

    @override
    def scales_for(self, inputs: Tensor, projections: Sequence[str]) -> list[ProjectionScale]:
        measured = amax(inputs)
        for name in projections:
            before = self.largest.get(name)
            self.largest[name] = measured if before is None else torch.maximum(before, measured)
        scale = ProjectionScale.of(self._scale(measured))
        return [scale for _ in projections]

    def result(self) -> dict[str, Tensor]:
        """Return what delayed scaling over everything measured would give."""
        return {name: self._scale(largest) for name, largest in self.largest.items()}

    def _scale(self, largest: Tensor) -> Tensor:
        usable = (largest > 0) & largest.isfinite()
        scale = torch.full_like(largest, E4M3.max_value * 2.0**-self.margin).div_(largest).clamp_max_(_FP32_MAX)
        return torch.where(usable, scale, torch.ones_like(scale))


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """The tokens of one adapter: ``rows`` (int64 [n]) of the batch, or all of them where None."""

    scales: AdapterScales
    rows: Tensor | None


@dataclass(slots=True)
class InputScales:
    """The adapters of one vLLM process, and the batch that it computes."""

    margin: int
    projections: list[str] = field(default_factory=list)
    """All that have FP8 inputs."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _adapters: dict[int, AdapterScales] = field(default_factory=dict)
    _measured: dict[str, MeasuredScales] = field(default_factory=dict)
    _unscaled: AdapterScales = field(default_factory=UnitScales)
    _groups: Sequence[TokenGroup] = ()
    _tokens: int = 0

    def load(self, adapter_id: int, name: str, folder: Path) -> None:
        """Load the scales of an adapter that vLLM loads.

        Args:
            adapter_id: vLLM's number of it.
            name: An adapter whose name ends in ``-calibrating`` is measured.
            folder: Holds the scales; where it does not, those measured under that name are written to it.

        Raises:
            ValueError: there are no scales, or not of the projections of this model.
        """
        if name.endswith(CALIBRATING):
            self._adapters[adapter_id] = self._measured[name] = MeasuredScales(margin=self.margin)
            return
        path = folder / INPUT_SCALES_FILE
        if not path.exists():
            measured = self._measured.pop(f"{name}{CALIBRATING}", None)
            if measured is None or not measured.largest:
                raise ValueError(f"{name} has no {INPUT_SCALES_FILE}, and its inputs were not measured")
            save_file({key: value.cpu() for key, value in measured.result().items()}, path, {CALIBRATED: "true"})
        self._adapters[adapter_id] = AdapterScales(self._read(path))

    def set_batch(self, adapter_ids: Iterable[int]) -> None:
        """Set which adapter each token of the next batch belongs to (0: none)."""
        ids = list(adapter_ids)
        self._tokens = len(ids)
        distinct = sorted(set(ids))
        if len(distinct) <= 1:
            self._groups = [TokenGroup(self._of(each), None) for each in distinct]
            return
        numbers = torch.tensor(ids)
        self._groups = [
            TokenGroup(self._of(each), (numbers == each).nonzero(as_tuple=True)[0].to(self.device)) for each in distinct
        ]

    def groups(self, tokens: int) -> Sequence[TokenGroup]:
        """Return the groups of the batch that is computed.

        Args:
            tokens: Tokens of the batch; vLLM may append some to fill it up, which are in no group.
        """
        if not self._groups:
            return (TokenGroup(self._unscaled, None),)
        if tokens < self._tokens:
            raise AssertionError(f"a batch of {tokens} tokens, and adapters of {self._tokens}")
        return self._groups

    def _of(self, adapter_id: int) -> AdapterScales:
        return self._adapters.get(adapter_id, self._unscaled)

    def _read(self, path: Path) -> dict[str, ProjectionScale]:
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if set(found) != set(self.projections):
            lacking, further = set(self.projections) - set(found), set(found) - set(self.projections)
            raise ValueError(
                f"{path.name} does not fit the model: without {sorted(lacking)[:3]}, and with {sorted(further)[:3]}"
            )
        return {name: ProjectionScale.of(value.to(self.device)) for name, value in found.items()}
