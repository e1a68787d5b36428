"""Runs vLLM on checkpoints in a process of its own, and writes what it generated and which weights it held.

``python vllm_child.py MODEL ADAPTER RESULT [MODEL ADAPTER RESULT …]``: RESULT.json has the greedy tokens of each prompt
without and with the adapter. One process serves them one after another, as importing vLLM takes longer than serving a
small model. vLLM's kernels for FP8 and NVFP4 need hardware. Here Marlin's, which takes bf16 inputs, is replaced by a
product with the decoded weight; RESULT.safetensors has the decoded weights by vLLM's names. Names, shapes, how
projections become one matrix and what becomes of scales until the kernel gets them is all vLLM's own code.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

PROMPTS = ("Ana has 3 apples and buys 4 more.", "How many", "Tom", "There are 12 birds on a tree.")
TOKENS = 12
decoded: dict[str, Tensor] = {}


def decode_fp8(layer: Any) -> Tensor:
    scales = getattr(layer, "weight_scale_inv", None)
    scales = layer.weight_scale if scales is None else scales
    rows, columns = layer.weight.shape
    spread = scales.repeat_interleave(128, dim=0)[:rows].repeat_interleave(128, dim=1)[:, :columns]
    assert spread.dtype == torch.float32
    return (layer.weight.float() * spread).to(torch.bfloat16)


def decode_nvfp4(layer: Any) -> Tensor:
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

    rows, half = layer.weight.shape
    elements = unpack_fp4_from_uint8(layer.weight.data, rows, 2 * half, dtype=torch.float32)
    products = elements * layer.weight_scale.float().repeat_interleave(16, dim=1)
    return (products * layer.weight_global_scale).to(torch.bfloat16)


def replace_kernels() -> None:
    from vllm.model_executor.kernels import linear
    from vllm.model_executor.kernels.linear.nvfp4.marlin import MarlinNvFp4LinearKernel
    from vllm.model_executor.kernels.linear.scaled_mm.marlin import MarlinFP8ScaledMMLinearKernel
    from vllm.platforms import PlatformEnum

    def multiply(_kernel: Any, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return torch.nn.functional.linear(x, decoded[layer.prefix], bias)

    for kernel, decode in ((MarlinFP8ScaledMMLinearKernel, decode_fp8), (MarlinNvFp4LinearKernel, decode_nvfp4)):

        def keep(_kernel: Any, layer: Any, decode: Any = decode) -> None:
            decoded[layer.prefix] = decode(layer)

        kernel.is_supported = classmethod(lambda _class, _capability=None: (True, None))
        kernel.process_weights_after_loading = keep
        kernel.apply_weights = multiply
    linear._POSSIBLE_FP8_BLOCK_KERNELS[PlatformEnum.CPU].append(MarlinFP8ScaledMMLinearKernel)


def main(tasks: list[str]) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    replace_kernels()
    for model, adapter, result in zip(tasks[::3], tasks[1::3], tasks[2::3], strict=True):
        decoded.clear()
        run(model, adapter, Path(result))
        gc.collect()  # the engine, before its process groups
        cleanup_dist_env_and_memory()


def run(model: str, adapter: str, result: Path) -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    llm = LLM(
        model=model,
        dtype="bfloat16",
        max_model_len=256,
        enforce_eager=True,
        enable_lora=True,
        max_lora_rank=16,
        kv_cache_memory_bytes=64 << 20,
    )
    sampling = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    answers = {}
    for name, lora in (("base", None), ("adapter", LoRARequest("adapter", 1, adapter))):
        outputs = llm.generate(list(PROMPTS), sampling, lora_request=lora, use_tqdm=False)
        answers[name] = [[list(each.prompt_token_ids), list(each.outputs[0].token_ids)] for each in outputs]
    save_file({name: tensor.contiguous() for name, tensor in decoded.items()}, result.with_suffix(".safetensors"))
    result.with_suffix(".json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1:])
