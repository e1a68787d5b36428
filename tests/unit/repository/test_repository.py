"""Promises that the repository makes about itself."""

import re
import subprocess
from pathlib import Path

from waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]


def test_every_make_target_that_the_readme_shows_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    shown = set(re.findall(r"(?:`|^)make ([a-z-]+)", readme, flags=re.MULTILINE))
    assert shown >= {"sweep", "test"}
    assert shown <= targets


def test_make_sweep_takes_seeds() -> None:
    commands = [
        subprocess.run(
            ["make", "-n", "sweep", *variables],  # noqa: S607 - the one that runs the tests
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        ).stdout
        for variables in (["SEEDS=0 1 2"], ["SEEDS=3", "CLUSTER=1"], [])
    ]
    assert "run configs/sweeps/embedded.yaml --seed 0 --seed 1 --seed 2 --store results" in commands[0]
    assert "run configs/sweeps/embedded.yaml --seed 3 --on kubernetes" in commands[1]
    assert "--seed" not in commands[2]


def test_a_borrowed_machine_needs_no_environment_and_gets_locked_wheels() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (carried,) = re.findall(r"^CARRIED := (.+)$", makefile, flags=re.MULTILINE)
    pins = re.findall(r"^([a-z0-9-]+)==", (ROOT / "locks/cuda.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(carried.split()) <= set(pins)
    commands = subprocess.run(
        ["make", "-n", "gpu-check", "BORROWED=1", "PYTHON=python9", "GPU_REPORT=out"],  # noqa: S607 - as above
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    ).stdout
    assert ".venv" not in commands
    assert "services/trainer/src" in commands
    assert ":gpu-wheels/site python9" in commands
    assert "-m surogate_bench_trainer.gpu_check --output out" in commands


def test_the_locks_hold_hashes_and_no_index_address() -> None:
    for lock in (ROOT / "locks" / name for name in ("cpu.txt", "cuda.txt", "dev.txt")):
        text = lock.read_text(encoding="utf-8")
        pins = re.findall(r"^[a-z0-9][^ ]*==", text, flags=re.MULTILINE)
        assert len(pins) > 100, lock.name
        assert text.count("--hash=sha256:") >= len(pins), lock.name
        assert "://" not in text, lock.name


def test_nothing_is_pickled_and_no_remote_code_is_trusted() -> None:
    forbidden = re.compile(r"trust_remote_code\s*=\s*True|(?<!safetensors\.)torch\.load\(|import pickle")
    sources = (ROOT / "services").rglob("*.py")
    assert [path for path in sources if forbidden.search(path.read_text(encoding="utf-8"))] == []
