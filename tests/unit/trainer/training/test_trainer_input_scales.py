"""The input scales that an FP8 training run leaves for serving."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from surogate_bench.contract import INPUT_SCALES_FILE
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.requests import PrepareRequest, TrainRequest
from surogate_bench_trainer.main import handle

MakeSweep = Callable[..., RecipeSweep]
PROJECTIONS = {
    f"model.layers.{block}.{name}"
    for block in range(2)
    for name in (
        *(f"self_attn.{each}_proj" for each in "qkvo"),
        *(f"mlp.{each}_proj" for each in ("gate", "up", "down")),
    )
}


def train(sweep: RecipeSweep, recipe: str, tmp_path: Path) -> Path:
    for request in (
        PrepareRequest(sweep=sweep, store=str(tmp_path / "store")),
        TrainRequest(sweep=sweep, store=str(tmp_path / "store"), recipe=recipe, seed=0, threads=1),
    ):
        work = tmp_path / request.kind
        work.mkdir()
        handle(request, work)
    return tmp_path / "store" / sweep_prefix(sweep, recipe)


def sweep_prefix(sweep: RecipeSweep, recipe: str) -> str:
    request = PrepareRequest(sweep=sweep, store="unused")
    return request.layout.train(f"{recipe}-s0")


def largest_first_input(model_folder: Path, data: Path, prompt: str) -> float:
    """Largest magnitude of what the first block's q, k and v take: it depends on the tokens alone."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    records = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    text = "".join(prompt.replace("{question}", each["question"]) + " " + each["answer"] for each in records)
    tokens = torch.tensor([*tokenizer(text)["input_ids"], tokenizer.eos_token_id])
    with torch.no_grad():
        return float(model.model.layers[0].input_layernorm(model.model.embed_tokens(tokens)).abs().max())


def test_an_fp8_run_leaves_the_scales_that_its_training_ended_with(
    make_sweep: MakeSweep, model_folder: Path, tmp_path: Path
) -> None:
    sweep = make_sweep(data={"train_size": 8})
    folder = train(sweep, "fp8", tmp_path)
    scales = load_file(folder / INPUT_SCALES_FILE)
    assert set(scales) == PROJECTIONS
    assert all(scale.shape == () and scale.dtype == torch.float32 for scale in scales.values())
    data = tmp_path / "store" / PrepareRequest(sweep=sweep, store="unused").layout.prepare / "data" / "train.jsonl"
    largest = largest_first_input(model_folder, data, sweep.data.prompt)
    assert scales["model.layers.0.self_attn.q_proj"] == torch.tensor(448.0) / torch.tensor(largest)
    for block in range(2):
        attention = f"model.layers.{block}.self_attn"
        assert scales[f"{attention}.q_proj"] == scales[f"{attention}.k_proj"] == scales[f"{attention}.v_proj"]


def test_a_run_without_fp8_inputs_leaves_none(make_sweep: MakeSweep, tmp_path: Path) -> None:
    assert not (train(make_sweep(), "fp4", tmp_path) / INPUT_SCALES_FILE).exists()
