"""Functions that a GPU compiles: traced here as whole graphs, for any shape, to the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from surogate_bench.errors import ConfigError
from surogate_bench_quantization.engines import emulated_products
from surogate_bench_quantization.formats import fp8, nvfp4
from surogate_bench_quantization.formats.elements import E4M3, E5M2, uniform_noise
from surogate_bench_quantization.fusion import require_compiler, slabs
from surogate_bench_trainer.model import lean_layers

SHAPES = [(48, 64), (112, 160), (16, 1024), (200, 48), (31, 64)]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def blocks(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """bf16 blocks, their scales before rounding, the tensor's amax and decode scale."""
    values = random(rows * columns // 16, 16).to(torch.bfloat16)
    largest = values.abs().amax(dim=1, keepdim=True).float()
    return values, largest / 6 * (1536 / largest.max()), largest.max(), largest.max() / 1536


def to_six(rows: int, columns: int, *, noisy: bool) -> tuple[Any, ...]:
    values, scales, _, decode = blocks(rows, columns)
    noise = uniform_noise(values, torch.Generator().manual_seed(0)) if noisy else None
    return values, scales, decode, torch.empty_like(values), noise


CASES: dict[str, tuple[Callable[..., Any], Callable[[int, int], tuple[Any, ...]]]] = {
    "fp8 codes": (
        fp8._round_scaled,
        lambda m, n: (random(m, n).bfloat16(), torch.tensor(3.7), E4M3, torch.empty(m, n, dtype=torch.bfloat16)),
    ),
    "fp8 cast": (fp8.cast_scaled, lambda m, n: (random(m, n).bfloat16(), torch.tensor(3.7), E5M2)),
    "nvfp4 to nearest": (nvfp4._round_to_six, lambda m, n: to_six(m, n, noisy=False)),
    "nvfp4 stochastic": (nvfp4._round_to_six, lambda m, n: to_six(m, n, noisy=True)),
    "nvfp4 4/6": (
        nvfp4._round_four_over_six,
        lambda m, n: (*blocks(m, n), torch.empty(m * n // 16, 16, dtype=torch.bfloat16)),
    ),
    "rounding of products": (emulated_products._rounded, lambda m, n: (random(m, n), torch.tensor(0.37))),
    "rms norm": (lean_layers._rms_norm, lambda m, n: (random(1, m, n).bfloat16(), random(n).bfloat16(), 1e-6)),
    "rms norm backward": (
        lean_layers._rms_norm_backward,
        lambda m, n: (random(1, m, n).bfloat16(), random(1, m, n), random(1, m, 1), random(n).bfloat16()),
    ),
    "rotation": (
        lean_layers._rotate,
        lambda m, n: (
            random(1, 2, m, n).bfloat16(),
            random(1, 1, m, n).bfloat16(),
            random(1, 1, m, n).bfloat16(),
            -1,
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_graph_serves_every_shape_and_gives_what_plain_execution_gives(name: str) -> None:
    function, arguments_for = CASES[name]
    plain = function.__wrapped__
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(plain, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in SHAPES:
        expected, actual = arguments_for(*shape), arguments_for(*shape)
        results = plain(*expected), compiled(*actual)
        # what is returned, and what is written to arguments
        for one, other in zip(flat(results[0], expected), flat(results[1], actual), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one.float(), other.float())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def flat(result: Any, arguments: tuple[Any, ...]) -> list[Tensor]:
    returned = result if isinstance(result, tuple) else (result,)
    return [value for value in (*returned, *arguments) if isinstance(value, Tensor)]


def test_a_cpu_takes_slabs_and_loses_no_row() -> None:
    values, scales = torch.arange(10), torch.arange(10).view(5, 2)[:, :1].repeat_interleave(2, dim=0)
    parts = list(slabs(values, scales, rows=4))
    assert [len(part) for part, _ in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([part for part, _ in parts]), values)
    assert torch.equal(torch.cat([scale for _, scale in parts]), scales)
    assert len(list(slabs(values, rows=0))) == 10


def test_a_gpu_without_a_c_compiler_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "/opt/missing/cc")
    require_compiler(torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"CC: .*/opt/missing/cc.*Install gcc"):
        require_compiler(torch.device("cuda"))
    (tmp_path / "clang").touch(mode=0o755)
    require_compiler(torch.device("cuda"))
