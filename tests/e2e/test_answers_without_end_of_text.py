"""A tokenizer without an end-of-text token, from data set to report: where real vLLM ends the answers."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from models.chat_templates import CHATML
from models.tiny_models import TinyModel
from sweeps import small_document
from transformers import AutoModelForCausalLM, AutoTokenizer
from waiting import PATIENCE_S

from surogate_bench.specs.model import ModelSpec
from surogate_bench.stages.model_source import SHIPPED_MODELS, local_model_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

END = "<|im_end|>"
SPEC = small_document(
    name="endless",
    data={"validation_size": 2, "test_size": 2},
    training={
        "max_steps": 2, "max_length": 512, "micro_batch_size": 1, "gradient_accumulation_steps": 1, "warmup_steps": 1,
        "learning_rate": 1e-6,
    },
    serving={"max_lora_rank": 16, "max_model_len": 512, "kv_cache_gib": 0.5, "start_timeout_s": PATIENCE_S},
    evaluation={"max_gen_toks": 9, "max_empty_fraction": 1.0},
)  # fmt: skip


def save_cycle(folder: Path, template: str) -> None:
    """Write a model that answers everything with X, Y, Z, END, X, …; its configuration ends texts at Y.

    Its blocks add nothing, so that each token depends on the one before: the first dimension of the embedding is the
    same for all tokens, and each of the next ones marks one token of the cycle.
    """
    tokenizer = AutoTokenizer.from_pretrained(local_model_folder(ModelSpec(builtin=SHIPPED_MODELS[0])))
    tokenizer.eos_token, tokenizer.chat_template = None, template
    tokenizer.add_special_tokens({"additional_special_tokens": [END, "<|im_start|>"]})
    cycle = tokenizer.convert_tokens_to_ids(["X", "Y", "Z", END])
    shape = {"vocab_size": len(tokenizer), "tie_word_embeddings": False, "eos_token_id": cycle[1], "bos_token_id": None}
    TinyModel(kind="llama", settings=shape).save(folder, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    embedding, head = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.data.zero_()
    embedding.zero_()[:, 0] = 1.0
    head.zero_()[cycle[0], 0] = 1.0
    for place, (token, following) in enumerate(pairwise(cycle), start=1):
        embedding[token, place] = head[following, place] = 8.0
    model.save_pretrained(folder)


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(f"results/sweeps/endless/*/{pattern}")
    return found


def test_answers_end_where_the_chat_template_ends_a_message_although_vllm_would_end_them_earlier(
    tmp_path: Path,
) -> None:
    answer = {"response": "XYZ", "finish_reason": "stop", "tokens": 4}
    save_cycle(tmp_path / "model", CHATML)
    document = SPEC | {"model": {"path": str(tmp_path / "model")}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable, "-m", "surogate_bench_orchestrator", "run", str(tmp_path / "sweep.yaml"),
            "--store", str(tmp_path / "results"), "--state-dir", str(tmp_path / "state"), "--json",
        ],
        cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for run in ("base", "bf16-s0"):
        lines = one(tmp_path, f"runs/{run}/eval/samples.jsonl").read_text(encoding="utf-8").splitlines()
        assert [{name: json.loads(line)[name] for name in answer} for line in lines] == [answer] * 2
    (warning,) = json.loads(one(tmp_path, "report/summary.json").read_text(encoding="utf-8"))["warnings"]
    assert "the tokenizer has no end-of-text token" in warning
    assert END in warning
