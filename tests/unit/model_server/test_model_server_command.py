from pathlib import Path
from typing import Any

import pytest
from sweeps import small_sweep

from surogate_bench.contract import VLLM_API_KEY_VARIABLE
from surogate_bench.errors import ConfigError
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench_model_server.vllm.command import ServerSettings, vllm_command

HUB_MODEL = ModelLocation("Qwen/Qwen3-0.6B")


def sweep_with(**serving: Any) -> RecipeSweep:
    return small_sweep(
        name="served",
        model={"hub": "Qwen/Qwen3-0.6B"},
        training={"lora": {"r": 4}},
        recipes=["bf16", "fp8", "fp4"],
        seeds=[7, 8],
        serving=serving,
    )


def settings(**changes: Any) -> ServerSettings:
    values: dict[str, Any] = {"host": "127.0.0.1", "port": 8000, "platform": "cpu", "threads": 4}
    return ServerSettings(**(values | changes))


def arguments_of(sweep: RecipeSweep, **changes: Any) -> list[str]:
    return vllm_command(sweep, HUB_MODEL, settings(**changes), inherited={}).arguments


def value_after(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_the_command_line_on_cpu_is_exactly_this() -> None:
    sweep = sweep_with(max_lora_rank=64, max_loras=4, max_model_len=512, kv_cache_gib=0.5)
    assert arguments_of(sweep)[1:] == [
        *("-P", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", "Qwen/Qwen3-0.6B", "--served-model-name", "base"),
        *("--host", "127.0.0.1", "--port", "8000"),
        *("--dtype", "bfloat16", "--seed", "7", "--max-model-len", "512", "--generation-config", "vllm"),
        *("--enable-lora", "--max-lora-rank", "64", "--max-loras", "4", "--max-cpu-loras", "8"),
        *("--uvicorn-log-level", "warning", "--disable-uvicorn-access-log", "--disable-fastapi-docs"),
        *("--enforce-eager", "--kv-cache-memory-bytes", str(512 * 2**20)),
    ]


def test_a_gpu_gets_its_memory_share_and_keeps_cuda_graphs() -> None:
    arguments = arguments_of(sweep_with(gpu_memory_utilization=0.7), platform="cuda")
    assert value_after(arguments, "--gpu-memory-utilization") == "0.7"
    assert "--enforce-eager" not in arguments
    assert "--kv-cache-memory-bytes" not in arguments


def test_further_arguments_come_last_so_that_they_win() -> None:
    assert arguments_of(sweep_with(extra_args=["--max-num-seqs", "8"]))[-2:] == ["--max-num-seqs", "8"]


@pytest.mark.parametrize(("asked", "started_with"), [(4, "8"), (8, "8"), (20, "32"), (500, "512")])
def test_the_rank_is_rounded_up_to_one_that_vllm_has(asked: int, started_with: str) -> None:
    assert value_after(arguments_of(sweep_with(max_lora_rank=asked)), "--max-lora-rank") == started_with


def test_a_rank_that_vllm_does_not_have_is_rounded_up_and_the_spec_refuses_those_above_its_highest() -> None:
    assert value_after(arguments_of(sweep_with(max_lora_rank=65)), "--max-lora-rank") == "128"
    assert value_after(arguments_of(sweep_with(max_lora_rank=512)), "--max-lora-rank") == "512"
    with pytest.raises(ConfigError, match=r"serving\.max_lora_rank: .* 512 \(got 513\)"):
        sweep_with(max_lora_rank=513)


@pytest.mark.parametrize(("max_loras", "kept"), [(2, "8"), (16, "16")])
def test_every_adapter_of_the_sweep_fits_into_memory(max_loras: int, kept: str) -> None:
    assert value_after(arguments_of(sweep_with(max_loras=max_loras)), "--max-cpu-loras") == kept


def test_a_local_model_is_served_offline(tmp_path: Path) -> None:
    command = vllm_command(sweep_with(), ModelLocation(str(tmp_path)), settings(), inherited={})
    assert command.environment["HF_HUB_OFFLINE"] == "1"
    hub = vllm_command(sweep_with(), HUB_MODEL, settings(), inherited={})
    assert "HF_HUB_OFFLINE" not in hub.environment


def test_the_key_is_in_the_environment_only() -> None:
    inherited = {VLLM_API_KEY_VARIABLE: "letmein", "VLLM_API_KEY": "old"}
    command = vllm_command(sweep_with(), HUB_MODEL, settings(api_key="letmein"), inherited=inherited)
    assert command.environment["VLLM_API_KEY"] == "letmein"
    assert VLLM_API_KEY_VARIABLE not in command.environment
    assert "letmein" not in " ".join(command.arguments)
    assert "VLLM_API_KEY" not in vllm_command(sweep_with(), HUB_MODEL, settings(), inherited=inherited).environment


def test_the_environment_is_passed_on_without_what_would_override_the_settings() -> None:
    inherited = {"PATH": "/bin", "VLLM_CPU_KVCACHE_SPACE": "40", "OMP_NUM_THREADS": "32", "AWS_SECRET_ACCESS_KEY": "s"}
    environment = vllm_command(sweep_with(), HUB_MODEL, settings(), inherited=inherited).environment
    assert environment == {
        "PATH": "/bin",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "TORCH_COMPILE_DISABLE": "1",
        "OMP_NUM_THREADS": "3",
    }


@pytest.mark.parametrize(("threads", "computing"), [(1, "1"), (2, "1"), (8, "7")])
def test_one_thread_is_left_to_the_http_process(threads: int, computing: str) -> None:
    command = vllm_command(sweep_with(), HUB_MODEL, settings(threads=threads), inherited={})
    assert command.environment["OMP_NUM_THREADS"] == computing


@pytest.mark.parametrize(
    ("inherited", "loaded"),
    [
        ({}, None),  # vLLM loads every plug-in, ours too
        ({"VLLM_PLUGINS": ""}, "surogate_bench_cpu_lora"),
        ({"VLLM_PLUGINS": "mine,other"}, "mine,other,surogate_bench_cpu_lora"),
        ({"VLLM_PLUGINS": "surogate_bench_cpu_lora,mine"}, "surogate_bench_cpu_lora,mine"),
    ],
)
def test_the_lora_plug_in_is_always_among_those_that_vllm_loads(inherited: dict[str, str], loaded: str | None) -> None:
    command = vllm_command(sweep_with(), HUB_MODEL, settings(), inherited=inherited)
    assert command.environment.get("VLLM_PLUGINS") == loaded
