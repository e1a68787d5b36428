"""What every recipe costs and saves on this GPU, with every engine that can run it.

`make gpu-check` times each recipe with the engine that is selected for it. This script adds the other engines, passes
without CUDA graphs, models of another shape, and a profile. Model, samples, loops and figures are those of
`surogate_bench_trainer.gpu_check.speed`. Ratios are against the first run of the same call.

    python tests/perf/gpu_recipes.py --steps 12 --json gpu.json
    python tests/perf/gpu_recipes.py --config qwen3-4b.json --recipes bf16 fp8 --engines torch
"""

import argparse
import gc
import json
import platform
import time
import traceback
from pathlib import Path
from typing import Any

UNCOUNTED_STEPS = 5


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
            run = measure(arguments, recipe, engine)
        except Exception:  # noqa: BLE001 - the others are still worth running
            say(f"{recipe} on {engine} failed:\n{traceback.format_exc()[-3000:]}")
            continue
        finally:
            gc.collect()
        figures["runs"].append(run)
        say(f"{row(figures['runs'])} ({time.perf_counter() - began:.0f} s)")
        if arguments.json:
            arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)  # noqa: T201 - a script that reports


def pairs(recipes: list[str] | None, engines: list[str] | None) -> list[tuple[str, str]]:
    """Recipes with the engines that may run them somewhere, after the plain loop and bf16 without graphs."""
    from surogate_bench.recipes import RECIPES
    from surogate_bench.recipes.engines import supported_engines

    found = [("bf16", "plain"), ("bf16", "eager")]
    found += [(recipe.name, support.engine) for recipe in RECIPES for support in supported_engines(recipe)]
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


def measure(arguments: argparse.Namespace, recipe: str, engine: str) -> dict[str, Any]:
    """Time one run."""
    import torch

    from surogate_bench.recipes import recipe_by_name
    from surogate_bench_trainer.gpu_check import speed
    from surogate_bench_trainer.gpu_check.learners import random_learner, random_samples
    from surogate_bench_trainer.gpu_check.settings import QWEN3_0_6B, reference_sweep

    device, sweep = torch.device("cuda", 0), reference_sweep()
    shape = json.loads(arguments.config.read_text(encoding="utf-8")) if arguments.config else QWEN3_0_6B
    samples = random_samples(shape["vocab_size"])
    steps = {"steps": arguments.steps, "uncounted": UNCOUNTED_STEPS}
    speed.start_measuring(device)
    if engine == "plain":
        timing = speed.time_plain(speed.PlainLoop(shape, sweep.training, device), samples, **steps)
        sizes, label = (0, 0), "Transformers + PEFT"
    else:
        sweep = sweep.model_copy(update={"engine": "auto" if engine == "eager" else engine})
        learner = random_learner(shape, sweep, recipe_by_name(recipe), device, capture=engine != "eager")
        timing = speed.time_learner(learner, sweep.training, samples, **steps)
        if arguments.profile:
            profile(learner, samples, sweep.training)
        sizes = (learner.recipe.weight_bytes, learner.recipe.operand_cache_bytes)
        label = learner.recipe.engine_name + (" without graphs" if engine == "eager" else "")
    return {
        "recipe": recipe,
        "engine": label,
        "tokens_per_second": timing.tokens_per_second,
        "peak_memory_bytes": timing.peak_memory_bytes,
        "weight_bytes": sizes[0],
        "operand_cache_bytes": sizes[1],
        "loss": timing.losses[-1],
    }


def profile(learner: Any, samples: list[Any], training: Any) -> None:
    """Print where the time of one micro-batch goes."""
    import torch

    from surogate_bench_trainer.data.batches import batches_of
    from surogate_bench_trainer.data.schedule import schedule_batches

    schedule = schedule_batches([len(sample.tokens) for sample in samples], training, seed=0)
    batches = batches_of(samples, schedule.micro_batches(0), training.loss_on, learner.device)[:1]
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        learner.train_step(batches, between=lambda: None)
        torch.cuda.synchronize()
    say(profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=60))


if __name__ == "__main__":
    main()
