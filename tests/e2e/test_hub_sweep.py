"""A sweep whose model and data come from a hub: a stand-in that is asked by the real client libraries."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from stand_ins.hub import Hub, Repository, serving
from sweeps import small_document
from waiting import PATIENCE_S

import surogate_bench
from surogate_bench_trainer.embedded.word_problems import split

pytestmark = pytest.mark.e2e

TOKEN = "hf_token-of-the-tests"
SPEC = small_document(
    name="hub",
    model={"hub": "lab/tiny-qwen3"},
    data={"hub": "lab/problems", "train_size": 32, "validation_size": 8},
    training={
        "max_steps": 4, "max_length": 512, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "warmup_steps": 1,
    },
    serving={"max_lora_rank": 16, "max_model_len": 512, "kv_cache_gib": 0.5, "start_timeout_s": PATIENCE_S},
    evaluation={"max_gen_toks": 16, "max_empty_fraction": 1.0},
)  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    model = tmp_path / "hub" / "model"
    shutil.copytree(Path(surogate_bench.__file__).parent / "builtin_models" / "tiny-qwen3-en", model)
    data = tmp_path / "hub" / "data"
    data.mkdir()
    for name, size in (("train", 40), ("test", 8)):
        problems = split(name, language="ro", size=size, seed=0)
        lines = [json.dumps({"question": problem.question, "answer": problem.answer}) for problem in problems]
        (data / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return Hub({"lab/tiny-qwen3": Repository(model)}, {"lab/problems": Repository(data)}, TOKEN)


@pytest.fixture
def endpoint(hub: Hub) -> Iterator[str]:
    with serving(hub) as address:
        yield address


def run(
    folder: Path, endpoint: str, *arguments: str, token: str = TOKEN, **spec: Any
) -> "subprocess.CompletedProcess[str]":
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SPEC | spec), encoding="utf-8")
    return subprocess.run(
        [
            sys.executable, "-m", "surogate_bench_orchestrator", "run", str(folder / "sweep.yaml"),
            "--store", str(folder / "results"), "--state-dir", str(folder / "state"), *arguments,
        ],
        cwd=folder, env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache"), "HF_TOKEN": token},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def manifest(folder: Path, stage: str) -> dict[str, Any]:
    (found,) = (folder / "results").glob(f"sweeps/hub/*/{stage}/manifest.json")
    loaded: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return loaded


def put_decoys(folder: Path) -> None:
    """Folders of the names that the sweep gives to the hub, in the folder that the sweep is run in."""
    (folder / "lab/tiny-qwen3").mkdir(parents=True)
    (folder / "lab/tiny-qwen3/config.json").write_text('{"model_type": "decoy"}', encoding="utf-8")
    (folder / "lab/problems").mkdir()
    for name in ("train", "test"):
        lines = '{"question": "decoy", "answer": "#### 1"}\n' * 50
        (folder / f"lab/problems/{name}.jsonl").write_text(lines, encoding="utf-8")


def test_every_stage_loads_the_commit_that_was_prepared_whatever_lies_in_the_current_folder(
    tmp_path: Path, hub: Hub, endpoint: str
) -> None:
    put_decoys(tmp_path)
    repository = hub.models["lab/tiny-qwen3"]
    prepared = repository.commit
    done = run(tmp_path, endpoint, "--json")
    assert done.returncode == 0, done.stderr
    states = {row["name"]: row["state"] for row in json.loads(done.stdout)["runs"]}
    assert states == {"base": "Succeeded", "bf16-s0": "Succeeded"}
    result = manifest(tmp_path, "prepare")["result"]
    assert result["model_source"] == f"lab/tiny-qwen3@{prepared}"
    assert result["data"]["train"]["records"] == 32
    (records,) = (tmp_path / "results").glob("sweeps/hub/*/prepare/data/train.jsonl")
    assert "decoy" not in records.read_text(encoding="utf-8")
    weights = {path.split()[1] for path in hub.requests if path.endswith("model.safetensors")}
    assert weights == {f"/lab/tiny-qwen3/resolve/{prepared}/model.safetensors"}


def test_a_gated_model_without_its_token_is_bad_input_that_names_the_variable(tmp_path: Path, endpoint: str) -> None:
    done = run(tmp_path, endpoint, token="hf_another")
    assert done.returncode == 2, done.stderr
    assert "HF_TOKEN" in done.stderr
    assert "hf_another" not in done.stderr + done.stdout


def test_a_model_that_the_hub_does_not_have_is_bad_input(tmp_path: Path, endpoint: str) -> None:
    done = run(tmp_path, endpoint, model={"hub": "lab/tiny-qwen4"})
    assert done.returncode == 2, done.stderr
    assert "lab/tiny-qwen4" in done.stderr


@pytest.mark.parametrize(
    ("files", "message", "remedy"),
    [
        ({"problems.py": "class Problems: ..."}, "is a loading script", "Use a copy"),
        ({"README.md": "Nothing but words."}, "has no data files that can be read", "Choose a"),
    ],
)
def test_a_data_set_without_readable_files_is_bad_input_in_one_sentence_with_the_remedy(
    tmp_path: Path, hub: Hub, endpoint: str, files: dict[str, str], message: str, remedy: str
) -> None:
    shutil.rmtree(hub.datasets["lab/problems"].folder)
    for name, text in files.items():
        path = hub.datasets["lab/problems"].folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    done = run(tmp_path, endpoint)
    assert done.returncode == 2, done.stderr
    assert f"data.hub: {message}" in done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr
