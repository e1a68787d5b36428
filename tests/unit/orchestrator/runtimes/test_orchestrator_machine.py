"""What a machine offers and how tasks share it."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from surogate_bench.recipes import RECIPES, recipe_by_name
from surogate_bench_orchestrator.runtimes.local import capabilities
from surogate_bench_orchestrator.runtimes.local import machine as machine_module
from surogate_bench_orchestrator.runtimes.local.capabilities import capability
from surogate_bench_orchestrator.runtimes.local.machine import Allotment, Gpu, Machine, allot, detect_machine, parse_gpu

GIB = 2**30
TWO_CORES = Machine(cores=2, memory_bytes=8 * GIB)


@pytest.mark.parametrize(
    ("machine", "trainers", "limit", "expected"),
    [
        (TWO_CORES, 7, None, Allotment(slots=2, side_by_side=2, threads=1)),
        (TWO_CORES, 7, 1, Allotment(slots=1, side_by_side=1, threads=2)),
        (TWO_CORES, 1, None, Allotment(slots=2, side_by_side=1, threads=2)),
        (Machine(cores=64, memory_bytes=256 * GIB), 7, None, Allotment(slots=8, side_by_side=7, threads=9)),
        (Machine(cores=64, memory_bytes=4 * GIB), 7, None, Allotment(slots=2, side_by_side=2, threads=32)),
        (Machine(cores=1, memory_bytes=GIB), 7, None, Allotment(slots=1, side_by_side=1, threads=1)),
    ],
)
def test_cores_are_shared_by_the_trainers_of_the_whole_sweep(
    machine: Machine, trainers: int, limit: int | None, expected: Allotment
) -> None:
    assert allot(machine, trainers=trainers, limit=limit) == expected


def test_every_gpu_is_a_slot_with_its_share_of_the_cores() -> None:
    machine = Machine(cores=16, memory_bytes=64 * GIB, gpus=(Gpu("0"), Gpu("3"), Gpu("GPU-abc")))
    assert allot(machine, trainers=7) == Allotment(slots=3, side_by_side=3, threads=5, devices=("0", "3", "GPU-abc"))
    assert allot(machine, trainers=7, limit=1).devices == ("0",)


def test_a_line_of_nvidia_smi_is_read() -> None:
    assert parse_gpu("0, 9.0, NVIDIA H100 80GB HBM3") == Gpu("0", "NVIDIA H100 80GB HBM3", (9, 0))
    assert parse_gpu("1, [N/A], Old, with comma") == Gpu("1", "Old, with comma", None)


@pytest.fixture
def cuda_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pretend a CUDA build of torch, and an nvidia-smi that lists two GPUs."""
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho '0, 8.0, A100'\necho '1, 10.0, B200'\n")
    command.chmod(0o755)
    monkeypatch.setattr(machine_module, "version", lambda _: "2.13.0+cu130")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return command


def test_gpus_are_found_where_torch_can_use_them(cuda_machine: Path) -> None:
    assert cuda_machine.exists()
    assert detect_machine().gpus == (Gpu("0", "A100", (8, 0)), Gpu("1", "B200", (10, 0)))


@pytest.mark.parametrize(
    ("visible", "ids"), [("1", ["1"]), ("", []), ("-1", []), ("1,0", ["1", "0"]), ("GPU-abc", ["GPU-abc"])]
)
def test_only_visible_gpus_count(
    cuda_machine: Path, monkeypatch: pytest.MonkeyPatch, visible: str, ids: list[str]
) -> None:
    assert cuda_machine.exists()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.id for gpu in detect_machine().gpus] == ids


def test_without_nvidia_smi_the_driver_is_queried(
    cuda_machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda_machine.write_text("#!/bin/sh\nexit 9\n")
    for address in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / address).mkdir(parents=True)
    monkeypatch.setattr(machine_module, "_NVIDIA_PROC", tmp_path / "gpus")
    assert [gpu.id for gpu in detect_machine().gpus] == ["0", "1"]
    cuda_machine.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [gpu.id for gpu in detect_machine().gpus] == ["0", "1"]


@pytest.mark.parametrize("installed", ["2.13.0+cpu", None])
def test_gpus_do_not_count_where_torch_cannot_use_them(
    cuda_machine: Path, monkeypatch: pytest.MonkeyPatch, installed: str | None
) -> None:
    assert cuda_machine.exists()

    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(machine_module, "version", version)
    assert detect_machine().gpus == ()


def test_limits_of_a_container_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_module, "_CGROUP", tmp_path)
    unlimited = detect_machine()
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    limited = detect_machine()
    assert (limited.cores, limited.memory_bytes) == (1, GIB)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert detect_machine() == unlimited


def test_the_engine_shown_is_the_engine_that_the_trainer_selects() -> None:
    gpus: list[tuple[int, int] | None] = [None, (8, 0), (8, 9), (9, 0), (10, 0)]
    program = (
        "import torch\n"
        "from surogate_bench.recipes import RECIPES\n"
        "from surogate_bench_quantization.engines import select_engine\n"
        "torch.cuda.get_device_name = lambda _: 'GPU'\n"
        f"for there in {gpus}:\n"
        "    torch.cuda.get_device_capability = lambda _: there\n"
        "    device = torch.device('cpu' if there is None else 'cuda')\n"
        "    print(*(select_engine(recipe, device).name for recipe in RECIPES))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for there, shown in zip(gpus, answer.stdout.splitlines(), strict=True):
        machine = TWO_CORES if there is None else Machine(cores=8, memory_bytes=GIB, gpus=(Gpu("0", "GPU", there),))
        assert shown.split() == [capability(recipe, machine).engine for recipe in RECIPES]


def test_the_note_names_emulation_and_the_hardware_that_needs_none() -> None:
    assert "compute capability 8.9" in capability(recipe_by_name("fp8"), TWO_CORES).note
    hopper = Machine(cores=8, memory_bytes=GIB, gpus=(Gpu("0", "H100", (9, 0)),))
    assert capability(recipe_by_name("fp8"), hopper).engine == "torch"
    assert "tensor cores" in capability(recipe_by_name("fp8"), hopper).note
    blackwell = Machine(cores=8, memory_bytes=GIB, gpus=(Gpu("0", "B200", (10, 0)),))
    for machine in (hopper, blackwell):
        assert capability(recipe_by_name("fp4"), machine).engine == "emulated"
        assert "not yet been run on hardware" in capability(recipe_by_name("fp4"), machine).note
    assert "10.0" in capability(recipe_by_name("fp4"), hopper, "torch").note
    assert capability(recipe_by_name("fp4"), hopper, "torch").engine is None
    requested = capability(recipe_by_name("fp4"), blackwell, "torch")
    assert (requested.engine, requested.note) == ("torch", "products on FP4 tensor cores; not yet run on hardware")


def test_without_bitsandbytes_nf4_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "find_spec", lambda _: None)
    assert capability(recipe_by_name("qbnb"), TWO_CORES).engine is None
