"""What every recipe costs and saves on this GPU: training steps of a random-init model.

The model has the shape of Qwen3-0.6B, or of another configuration given as JSON; weights are random, samples are random
tokens as long as GSM8K's, packed as in the reference experiment. Speed and memory do not depend on either; nothing is
downloaded. Every recipe runs with every engine that can; the first steps, in which kernels are compiled and graphs
captured, are not counted. The plain alternative is a loop over a Transformers model
with PEFT's LoRA under autocast, the same samples padded to the longest of a micro-batch; tokens are those of samples.
Ratios are against the first run of the same call.

    python tests/perf/gpu_recipes.py --steps 12 --json gpu.json
    python tests/perf/gpu_recipes.py --config qwen3-4b.json --recipes bf16 fp8 --engines torch
"""

import argparse
import gc
import json
import platform
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNCOUNTED_STEPS = 5
QWEN3_0_6B = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 40960,
}
ENGINES = {"bf16": ("torch",), "nf4": ("bitsandbytes",), "fp8-hybrid": ("torch", "emulated"), "nvfp4": ("emulated",)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="a transformers config.json, instead of Qwen3-0.6B's")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--recipes", nargs="+", help="instead of all seven")
    parser.add_argument("--engines", nargs="+", help="instead of all that can; 'plain' and 'eager' are the baselines")
    parser.add_argument("--profile", action="store_true", help="also print where a step's time goes")
    parser.add_argument("--json", type=Path, help="write the figures here, after each run")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"gpu": gpu(), "python": platform.python_version(), "runs": []}
    say(figures["gpu"])
    for recipe, engine in pairs(arguments.recipes, arguments.engines):
        began = time.perf_counter()
        try:
            run = plain(arguments, recipe) if engine == "plain" else train(arguments, recipe, engine)
        except Exception:  # noqa: BLE001 - the others are still worth running
            say(f"{recipe} on {engine} failed:\n{traceback.format_exc()[-3000:]}")
            continue
        finally:
            forget()
        figures["runs"].append(run)
        say(f"{row(figures['runs'])} ({time.perf_counter() - began:.0f} s)")
        if arguments.json:
            arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)  # noqa: T201 - a script that reports


def forget() -> None:
    """Free the GPU's memory for the next run."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def pairs(recipes: list[str] | None, engines: list[str] | None) -> list[tuple[str, str]]:
    """Recipes with the engines that may run them here, after the plain alternative and bf16 without graphs."""
    from surogate_bench.recipes import RECIPES, WeightStorage

    found = [("bf16", "plain"), ("bf16", "eager")] + [
        (recipe.name, engine)
        for recipe in RECIPES
        for engine in ENGINES["nf4" if recipe.weight_storage is WeightStorage.NF4 else recipe.compute.value]
    ]
    return [
        (recipe, engine)
        for recipe, engine in found
        if (recipes is None or recipe in recipes) and (engines is None or engine in engines)
    ]


def gpu() -> str:
    """Name, driver and versions."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (compute capability {major}.{minor}), torch {torch.__version__}"


def row(runs: list[dict[str, Any]]) -> str:
    """One row of a Markdown table, against the first run."""
    run, first = runs[-1], runs[0]
    speed = run["tokens_per_second"]
    return (
        f"| {run['recipe']} | {run['engine']} | {speed:,.0f} | {speed / first['tokens_per_second']:.2f}x | "
        f"{run['peak_memory_bytes'] / 2**30:.2f} GiB | {run['weight_bytes'] / 1e6:,.0f} MB | "
        f"{run['operand_cache_bytes'] / 1e6:,.0f} MB | {run['loss']:.4f} |"
    )


def train(arguments: argparse.Namespace, recipe: str, engine: str) -> dict[str, Any]:
    """Time optimizer steps as the train stage runs them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from surogate_bench.recipes import recipe_by_name
    from surogate_bench_trainer.data.batches import batches_of
    from surogate_bench_trainer.data.schedule import schedule_batches
    from surogate_bench_trainer.model.attention import IMPLEMENTATION
    from surogate_bench_trainer.model.lean_layers import make_lean
    from surogate_bench_trainer.training.setup import build_learner

    device = torch.device("cuda", 0)
    sweep = reference_sweep().model_copy(update={"engine": "auto" if engine == "eager" else engine})
    config = AutoConfig.for_model(**model_shape(arguments))
    torch.manual_seed(0)
    with device:
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=IMPLEMENTATION)
    make_lean(base)
    learner = build_learner(base, sweep, recipe_by_name(recipe), seed=0, steps=1000, capture=engine != "eager")
    samples = random_samples(config.vocab_size)
    schedule = schedule_batches([len(sample.tokens) for sample in samples], sweep.training, seed=0)
    loss = 0.0

    def one_step(step: int) -> int:
        nonlocal loss
        batches = batches_of(samples, schedule.micro_batches(step), sweep.training.loss_on, device)
        outcome = learner.train_step(batches, between=lambda: None)
        loss = outcome.loss
        return outcome.tokens

    speed = timed(one_step, arguments.steps)
    if arguments.profile:
        batches = batches_of(samples, schedule.micro_batches(0), sweep.training.loss_on, device)[:1]
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profiler:
            learner.train_step(batches, between=lambda: None)
            torch.cuda.synchronize()
        say(profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=60))
    return {
        "recipe": recipe,
        "engine": learner.recipe.engine_name + (" without graphs" if engine == "eager" else ""),
        "tokens_per_second": speed,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        "weight_bytes": learner.recipe.weight_bytes,
        "operand_cache_bytes": learner.recipe.operand_cache_bytes,
        "loss": loss,
    }


def plain(arguments: argparse.Namespace, recipe: str) -> dict[str, Any]:
    """Time the plain alternative."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from surogate_bench_trainer.data.schedule import schedule_batches

    device = torch.device("cuda", 0)
    training = reference_sweep().training
    config = AutoConfig.for_model(**model_shape(arguments))
    torch.manual_seed(0)
    with device:
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    lora = LoraConfig(
        r=training.lora.r, lora_alpha=training.lora.alpha, target_modules=list(training.lora.target_modules)
    )
    model = get_peft_model(base, lora).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)
    samples = random_samples(config.vocab_size)
    schedule = schedule_batches([len(sample.tokens) for sample in samples], training, seed=0)
    loss = 0.0

    def one_step(step: int) -> int:
        nonlocal loss
        tokens, loss = 0, 0.0
        micro_batches = schedule.micro_batches(step)
        for indices in micro_batches:
            chosen = [samples[index] for index in indices]
            longest = max(len(sample.tokens) for sample in chosen)
            ids = torch.zeros(len(chosen), longest, dtype=torch.int64)
            labels = torch.full_like(ids, -100)
            for row, sample in enumerate(chosen):
                length = len(sample.tokens)
                ids[row, :length] = torch.tensor(sample.tokens)
                labels[row, sample.prompt_length : length] = ids[row, sample.prompt_length : length]
                tokens += length
            ids = ids.to(device)
            with torch.autocast("cuda", torch.bfloat16):
                result = model(
                    input_ids=ids, attention_mask=(ids != 0).long(), labels=labels.to(device), use_cache=False
                )
            (result.loss / len(micro_batches)).backward()
            loss += float(result.loss) / len(micro_batches)
        torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return tokens

    speed = timed(one_step, arguments.steps)
    return {
        "recipe": recipe,
        "engine": "Transformers + PEFT",
        "tokens_per_second": speed,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        "weight_bytes": 0,
        "operand_cache_bytes": 0,
        "loss": loss,
    }


def timed(one_step: Callable[[int], int], steps: int) -> float:
    """Median tokens per second of the steps that count."""
    import torch

    speeds: list[float] = []
    for step in range(steps):
        torch.cuda.synchronize()
        began = time.perf_counter()
        tokens = one_step(step)
        torch.cuda.synchronize()
        if step >= UNCOUNTED_STEPS:
            speeds.append(tokens / (time.perf_counter() - began))
    return statistics.median(speeds)


def reference_sweep() -> Any:
    """Settings of the reference experiment."""
    from surogate_bench.specs import load_sweep

    return load_sweep(Path(__file__).parents[2] / "configs/sweeps/qwen3-0.6b-ro-gsm8k.yaml")


def model_shape(arguments: argparse.Namespace) -> dict[str, Any]:
    """What to build."""
    return json.loads(arguments.config.read_text(encoding="utf-8")) if arguments.config else QWEN3_0_6B


def random_samples(vocabulary: int) -> list[Any]:
    """Random tokens; lengths spread as those of GSM8K's samples under Qwen's tokenizer (90 to 400)."""
    import numpy as np

    from surogate_bench_trainer.data.encoding import Sample

    generator = np.random.default_rng(0)  # token 0 is padding's
    lengths = generator.lognormal(mean=5.2, sigma=0.35, size=4000).clip(90, 600).astype(int)
    return [
        Sample(tokens=generator.integers(1, vocabulary, length).tolist(), prompt_length=int(length) // 2)
        for length in lengths
    ]


if __name__ == "__main__":
    main()
