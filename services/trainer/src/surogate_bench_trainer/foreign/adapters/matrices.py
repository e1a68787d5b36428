"""The matrices of a foreign adapter: complete pairs, of the base model's shapes, with finite values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from surogate_bench.contract import ADAPTER_PREFIX, ADAPTER_WEIGHTS_FILE
from surogate_bench.errors import ConfigError, printable, shorten
from surogate_bench_trainer.foreign.adapters.base_layers import LARGEST_HEADER, BaseLayers, LayerShape

_MATRIX = re.compile(rf"{re.escape(ADAPTER_PREFIX)}(?P<layer>[A-Za-z0-9_.]+)\.lora_(?P<matrix>[AB])\.weight")
_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_LINEAR_ONLY = "Train an adapter of the linear layers inside the transformer blocks only."
_EXPLANATIONS = (
    ("lora_magnitude_vector", "is a magnitude of DoRA, which vLLM does not serve", "Train it as plain LoRA."),
    ("lora_embedding_", "adapts an embedding, which is not served here", _LINEAR_ONLY),
    ("lm_head.lora_", "adapts the output head, which is not served here", _LINEAR_ONLY),
    (".bias", "is a trained bias, which vLLM does not serve", "Train it with bias: none."),
    (
        ".weight",
        "is a whole weight of the model, not one of the adapter's matrices",
        "Train it without modules_to_save.",
    ),
)
"""Parts of names of tensors that are not LoRA matrices, and what such a tensor is; the most specific first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A (rank, inputs) and B (outputs, rank) of one layer, as stored."""

    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        """Inner width of the product."""
        return int(self.a.shape[0])


def read_matrices(path: Path, base: BaseLayers, *, max_rank: int, field: str) -> Mapping[str, Pair]:
    """Read an adapter's matrices, by full name of the layer, sorted.

    Args:
        path: The safetensors file, of bounded size.
        base: The base model that they must fit.
        max_rank: ``serving.max_lora_rank``.
        field: Setting that names the adapter, for messages.

    Raises:
        ConfigError: the file is damaged, or vLLM does not serve a tensor with this model; names it.
    """
    _require_small_header(path, field)
    try:
        with safe_open(path, "pt") as file:
            names = _matrix_names(sorted(file.keys()), field)
            for layer, name in names.items():
                _check_layer(layer, base, field)
                _check_shapes(file, name, base.served[layer], max_rank, field)
            return {layer: _load(file, name, field) for layer, name in names.items()}
    except SafetensorError as error:
        raise _unusable(field, f"is not in safetensors format, or is truncated: {error}", _COPY) from error


def _require_small_header(path: Path, field: str) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(LARGEST_HEADER, path.stat().st_size):
        raise _unusable(field, f"is not in safetensors format: its header would have {length:,} bytes", _COPY)


def _matrix_names(names: list[str], field: str) -> Mapping[str, Mapping[str, str]]:
    """Group the names of tensors into pairs: by layer, those of A and B."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = _MATRIX.fullmatch(name)
        if match is None or ".lora_" in match["layer"] or match["layer"] == "lm_head":
            raise _explained(name, field)
        found.setdefault(match["layer"], {})[match["matrix"]] = name
    if not found:
        raise _unusable(field, "holds no matrices", "Give the folder of a trained adapter.")
    for layer, pair in found.items():
        if len(pair) == 1:
            (present,) = pair
            missing = "B" if present == "A" else "A"
            raise _unusable(field, f"has lora_{present} of {layer} without lora_{missing}", _COPY)
    return found


def _explained(name: str, field: str) -> ConfigError:
    for part, problem, remedy in _EXPLANATIONS:
        if part in name:
            return _unusable(field, f"holds {_shown(name)}, which {problem}", remedy)
    return _unusable(field, f"holds {_shown(name)}, which is not a matrix of PEFT's LoRA", "Save it with PEFT.")


def _check_layer(layer: str, base: BaseLayers, field: str) -> None:
    if layer in base.served:
        return
    problem = f"adapts {_shown(layer)}, which is not a layer of the sweep's model"
    if layer in base.others:
        problem = f"adapts {_shown(layer)}, which is not among the linear layers that are served"
    raise _unusable(field, problem, f"Use an adapter of this model. {_LINEAR_ONLY}")


def _check_shapes(file: Any, names: Mapping[str, str], expected: LayerShape, max_rank: int, field: str) -> None:  # noqa: ANN401 - untyped
    shapes = {matrix: tuple(file.get_slice(name).get_shape()) for matrix, name in names.items()}
    for name in names.values():
        kind = file.get_slice(name).get_dtype()
        if kind not in _TYPES:
            raise _unusable(field, f"stores {name} as {kind}", f"Save it as one of {', '.join(sorted(_TYPES))}.")
    rank = shapes["A"][0] if shapes["A"] else 0
    if shapes["A"] != (rank, expected.inputs) or shapes["B"] != (expected.outputs, rank) or rank < 1:
        raise _unusable(
            field,
            f"has A {_by(shapes['A'])} and B {_by(shapes['B'])} at {names['A'].removeprefix(ADAPTER_PREFIX)}, "
            f"where the sweep's model needs rank x {expected.inputs} and {expected.outputs} x rank",
            "Use an adapter that was trained on this model.",
        )
    if rank > max_rank:
        raise _unusable(
            field,
            f"has rank {rank} at {names['A'].removeprefix(ADAPTER_PREFIX)}, above serving.max_lora_rank {max_rank}",
            "Raise serving.max_lora_rank.",
        )


def _load(file: Any, names: Mapping[str, str], field: str) -> Pair:  # noqa: ANN401 - untyped
    tensors = {matrix: file.get_tensor(name) for matrix, name in names.items()}
    for matrix, tensor in tensors.items():
        finite = torch.isfinite(tensor.to(torch.bfloat16))  # in which it is served
        if not bool(finite.all()):
            raise _unusable(
                field,
                f"has {int((~finite).sum())} NaN or infinite values in {names[matrix]}",
                "Use a checkpoint from before the training diverged.",
            )
    return Pair(a=tensors["A"], b=tensors["B"])


_COPY = "Copy the adapter again, or save it again with PEFT."


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"


def _shown(name: str) -> str:
    return shorten(printable(name))


def _unusable(field: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError(f"{ADAPTER_WEIGHTS_FILE} {problem}", field=field, remedy=remedy)
