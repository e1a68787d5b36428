"""A real vLLM with an adapter merged into its base, against transformers with the model that PEFT merged."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch
from models.served_answers import (
    Reference,
    distance,
    greedy_answers,
    quantized_by_bitsandbytes,
    questions_of,
    require_ties_only,
    serving,
    trained_store,
)
from peft import PeftModel
from ports import free_port
from sweeps import small_sweep
from transformers import AutoModelForCausalLM, PreTrainedModel
from waiting import PATIENCE_S

from surogate_bench.results import EvalResult
from surogate_bench.stages.model_source import local_model_folder
from surogate_bench.stages.publication import read_result
from surogate_bench.stages.requests import EvaluateRequest, ServeRequest
from surogate_bench.store.object_store import open_store

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")]

ANSWERS = int(os.environ.get("SERVED_ANSWERS", "16"))
SWEEP = small_sweep(
    name="merged",
    data={"train_size": 128, "test_size": ANSWERS, "validation_size": 4},
    training={"max_steps": 12, "max_length": 512, "learning_rate": 1e-3, "lora": {"r": 16, "alpha": 32}},
    recipes=["fp8", "qbnb"],
    serving={"max_lora_rank": 16, "max_loras": 2, "max_model_len": 512, "kv_cache_gib": 0.25,
             "start_timeout_s": PATIENCE_S, "under": ["own", "qbnb"], "merged": True},
)  # fmt: skip
RUN = "fp8-s0"
BASE = str(local_model_folder(SWEEP.model))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one adapter, trained under FP8."""
    return trained_store(tmp_path_factory.mktemp("merged"), SWEEP, "fp8")


def merged_by_peft(store: str, folder: Path) -> str:
    """Save the model that PEFT merges."""
    adapter = Path(store) / request_for(store, None).layout.train(RUN) / "adapter"
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.bfloat16)
    PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(folder)
    return str(folder)


def request_for(store: str, under: str | None) -> ServeRequest:
    ports = {"port": free_port(), "vllm_port": free_port()}
    return ServeRequest(sweep=SWEEP, store=store, threads=2, under=under, merged=RUN, **ports)


def plain(folder: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return model


def evaluate(serve: ServeRequest, work: Path) -> EvalResult:
    """Score the merged model with the real evaluator."""
    request = EvaluateRequest(
        sweep=SWEEP, store=serve.store, run=RUN, server_url=f"http://127.0.0.1:{serve.port}", under=serve.under,
        merged=True,
    )  # fmt: skip
    work.mkdir()
    (work / "request.json").write_text(request.model_dump_json())
    command = [sys.executable, "-P", "-m", "surogate_bench_evaluator", str(work / "request.json")]
    subprocess.run([*command, "--work-dir", str(work)], check=True, timeout=PATIENCE_S)
    result = read_result(open_store(serve.store), serve.layout.eval(RUN, serve.under, merged=True), EvalResult)
    assert result is not None
    return result


def test_greedy_answers_are_those_of_the_model_that_peft_merged_up_to_ties(store: str, tmp_path: Path) -> None:
    request = request_for(store, None)
    with serving(request, tmp_path) as call:
        answers = greedy_answers(call, request, "base", questions_of(request))
        status = call("GET", request.port, "/status").json()
        refused = call("PUT", request.port, f"/adapters/{RUN}", json={"prefix": request.layout.train(RUN)})
        result = evaluate(request, tmp_path / "evaluation")
    assert (status["under"], status["merged"], status["adapters"]) == (None, RUN, {})
    assert (refused.status_code, "merged into" in refused.json()["message"]) == (422, True)
    reference = Reference(plain(merged_by_peft(store, tmp_path / "peft")), None)
    require_ties_only(reference, answers)
    assert distance(reference, answers[:4]) < 0.5 * distance(Reference(plain(BASE), None), answers[:4])
    assert (result.merged, result.served_under, result.samples) == (True, None, ANSWERS)
    assert not (tmp_path / "merged").exists(), "a merged model is as large as the base, and is left behind"


def test_merged_and_then_quantized_is_what_bitsandbytes_makes_of_the_model_that_peft_merged(
    store: str, tmp_path: Path
) -> None:
    request = request_for(store, "qbnb")
    with serving(request, tmp_path) as call:
        answers = greedy_answers(call, request, "base", questions_of(request))
    require_ties_only(Reference(quantized_by_bitsandbytes(merged_by_peft(store, tmp_path / "peft")), None), answers)


@pytest.mark.exhaustive
def test_fp8_inputs_of_a_merged_model_are_scaled_as_the_training_of_its_adapter_left_them(
    store: str, tmp_path: Path
) -> None:
    request = request_for(store, "fp8")
    with serving(request, tmp_path) as call:
        status: httpx.Response = call("GET", request.port, "/status")
        assert status.json()["input_scales"] == {"base": "training"}
        assert evaluate(request, tmp_path / "evaluation").served_under == "fp8"
