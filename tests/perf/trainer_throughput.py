"""Tokens per second of our trainer and of a plain HF Trainer + PEFT loop: same samples, same settings, same machine.

The plain loop is what its documentation leads to: `Trainer` with `bf16=True`, `get_peft_model`, batches padded to their
longest sample, losses logged every 25 steps. Both train the bf16 recipe on the same samples with the same optimizer
settings, the same loss positions and about as many tokens a step. A token is one of a real sample, never padding.
Processes of the two alternate; the first steps of each are not counted.

    python tests/perf/trainer_throughput.py --sweep configs/sweeps/embedded.yaml --threads 1
    python tests/perf/trainer_throughput.py --sweep configs/sweeps/smollm2-135m-gsm8k.yaml --data gsm8k/ \
        --steps 12 --accumulation 1
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from surogate_bench.layout import SweepLayout
from surogate_bench.machine.hardware import describe_machine
from surogate_bench.recipes import recipe_by_name
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import open_store

UNCOUNTED_STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=Path("configs/sweeps/embedded.yaml"))
    parser.add_argument("--data", type=Path, help="folder with train.jsonl and test.jsonl, instead of the sweep's data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--accumulation", type=int, help="instead of the sweep's gradient_accumulation_steps")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sweep = sweep_for(arguments)
    if arguments.side:
        side = ours if arguments.side == "ours" else plain
        print(json.dumps(side(sweep, arguments.store, arguments.threads)))  # noqa: T201 - read by the parent
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(sweep, folder)
        figures = compare(arguments, sweep, f"{folder}/store")
    print(json.dumps(figures, indent=2))  # noqa: T201 - a script that reports
    print(row(figures))  # noqa: T201 - a script that reports
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def sweep_for(arguments: argparse.Namespace) -> RecipeSweep:
    """Shorten the sweep to the steps that are timed, with neither validation nor checkpoint among them."""
    document = load_sweep(arguments.sweep).model_dump(mode="json", exclude_none=True)
    document["training"].pop("epochs", None)
    document["training"] |= {"max_steps": arguments.steps, "eval_steps": 10**6, "checkpoint_steps": 10**6}
    if arguments.accumulation is not None:
        document["training"]["gradient_accumulation_steps"] = arguments.accumulation
    document["recipes"] = ["bf16"]
    if arguments.data is not None:
        sources = ("hub", "config", "revision", "path", "builtin")
        kept = {key: value for key, value in document["data"].items() if key not in sources}
        document["data"] = kept | {"path": str(arguments.data.resolve())}
    return parse_sweep(document)


def prepare(sweep: RecipeSweep, folder: str) -> None:
    """Put data and, where it has to be converted, the model into a store."""
    from surogate_bench_trainer.prepare import prepare_stage

    work_dir = Path(folder) / "prepare"
    work_dir.mkdir()
    prepare_stage(PrepareRequest(sweep=sweep, store=f"{folder}/store"), work_dir)


def compare(arguments: argparse.Namespace, sweep: RecipeSweep, store: str) -> dict[str, Any]:
    """Alternate processes of both sides and take medians."""
    timings: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
    common = [*sys.argv[1:], "--store", store]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "TOKENIZERS_PARALLELISM": "false"}
    for repeat in range(arguments.repeats):
        for side, found in timings.items():
            command = [sys.executable, __file__, *common, "--side", side]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                sys.exit(f"{side} failed:\n{done.stderr}")
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{repeat + 1}/{arguments.repeats} {side}: {found[-1]}", file=sys.stderr)  # noqa: T201 - progress
    speeds = {
        side: statistics.median(timing["tokens"] / timing["seconds"] for timing in found)
        for side, found in timings.items()
    }
    limit = gemm_flops(arguments.threads)
    used = speeds["ours"] * timings["ours"][0]["flops_per_token"]
    return {
        "model": sweep.model.label,
        "machine": describe_machine().model_dump(),
        "threads": arguments.threads,
        "steps": arguments.steps,
        "tokens_per_second": speeds,
        "ratio": speeds["ours"] / speeds["plain"],
        "bf16_gemm_flops": limit,
        "share_of_gemm_limit": used / limit,
        "timings": timings,
    }


def row(figures: dict[str, Any]) -> str:
    """One row of a Markdown table."""
    speeds = figures["tokens_per_second"]
    return (
        f"| {figures['model']} | {figures['threads']} | {speeds['plain']:,.0f} | {speeds['ours']:,.0f} | "
        f"{figures['ratio']:.2f}x | {figures['bf16_gemm_flops'] / 1e9:.0f} GFLOP/s | "
        f"{figures['share_of_gemm_limit']:.0%} |"
    )


def gemm_flops(threads: int) -> float:
    """Best bf16 matrix-product rate of this CPU over a few sizes, FLOP/s."""
    import torch

    torch.set_num_threads(threads)
    best = 0.0
    for size in (256, 512, 1024, 2048):
        a, b = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(max(5, (2048 // size) ** 2)):
            began = time.perf_counter()
            a @ b
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def ours(sweep: RecipeSweep, store_url: str, threads: int) -> dict[str, float]:
    """Time our loop, as the train stage runs it."""
    import torch

    from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products
    from surogate_bench_trainer.data.records import read_prepared
    from surogate_bench_trainer.training.loop import TrainingLoop
    from surogate_bench_trainer.training.metrics import MetricsLog
    from surogate_bench_trainer.training.setup import build_data, build_learner, load_base

    torch.set_num_threads(threads)
    ensure_fast_bf16_products()
    device = torch.device("cpu")
    store, layout = open_store(store_url), SweepLayout(sweep.name, sweep.spec_hash)
    base, tokenizer = load_base(locate_model(sweep.model, store=store, layout=layout, cache=Path("unused")), device)
    data_folder = Path(store_url) / layout.prepare / "data"
    splits = {name: read_prepared(data_folder / f"{name}.jsonl") for name in ("train", "validation")}
    data = build_data(splits, tokenizer, sweep, seed=0, device=device)
    learner = build_learner(base, sweep, recipe_by_name("bf16"), seed=0, steps=data.schedule.total_steps)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        metrics = MetricsLog(Path(folder))
        TrainingLoop(
            learner=learner,
            training=sweep.training,
            schedule=data.schedule,
            samples=data.samples,
            validation=data.validation[:1],
            metrics=metrics,
            save=lambda _step, _tensors: None,
            report=lambda progress: times.append(time.perf_counter()) if progress.phase == "training" else None,
        ).run(0)
        lines = [json.loads(line) for line in metrics.content().splitlines()]
    tokens = [line["tokens"] for line in lines if "tokens" in line]
    counted = [sample for step in range(len(tokens)) for batch in data.schedule.micro_batches(step) for sample in batch]
    lengths = [(len(data.samples[i].tokens), data.samples[i].prompt_length) for i in counted]
    return {
        "tokens": sum(tokens[UNCOUNTED_STEPS:]),
        "seconds": times[-1] - times[UNCOUNTED_STEPS - 1],
        "mean_loss": statistics.fmean(line["loss"] for line in lines if "loss" in line),
        "flops_per_token": flops_per_token(learner.model, lengths),
    }


def flops_per_token(model: Any, lengths: list[tuple[int, int]]) -> float:
    """Multiply-adds (x 2) that training needs per token, on average.

    Frozen linear layers: forward and input gradient. LoRA: also weight gradients. Head: counted positions only.
    Attention: the causal half of both products, forward and twice that backward.
    """
    from torch import nn

    from surogate_bench_trainer.model.lora import lora_layers

    tokens = sum(length for length, _ in lengths)
    counted = sum(length - prompt for length, prompt in lengths)
    layers = list(lora_layers(model))
    frozen = sum(layer.in_features * layer.out_features for layer in layers)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    head: nn.Linear = model.base_model.model.lm_head
    config = model.config
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    pairs = sum(length * length / 2 for length, _ in lengths)
    attention = 3 * 4 * pairs * width * config.num_hidden_layers
    return float(4 * frozen + 6 * trained + (4 * head.weight.numel() * counted + attention) / tokens)


def plain(sweep: RecipeSweep, store_url: str, threads: int) -> dict[str, float]:
    """Time Trainer + PEFT on padded batches of the same samples."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

    from surogate_bench_trainer.data.encoding import encode
    from surogate_bench_trainer.data.records import read_prepared
    from surogate_bench_trainer.data.schedule import schedule_batches

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    training = sweep.training
    store, layout = open_store(store_url), SweepLayout(sweep.name, sweep.spec_hash)
    location = locate_model(sweep.model, store=store, layout=layout, cache=Path("unused"))
    tokenizer = AutoTokenizer.from_pretrained(location.name_or_path)
    records = read_prepared(Path(store_url) / layout.prepare / "data" / "train.jsonl")
    samples = encode(records, tokenizer, sweep.data)
    schedule = schedule_batches([len(sample.tokens) for sample in samples], training, seed=0)
    batches = [batch for step in range(schedule.total_steps) for batch in schedule.micro_batches(step)]
    order = [index for batch in batches for index in batch]
    size = max(1, round(len(order) / len(batches)))  # as many samples a forward pass as packing has on average

    def collate(chosen: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(sample["input_ids"]) for sample in chosen)
        pad = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0, "labels": -100}
        return {
            name: torch.tensor([sample[name] + [value] * (longest - len(sample[name])) for sample in chosen])
            for name, value in pad.items()
        }

    def example(index: int) -> dict[str, list[int]]:
        tokens, prompt = samples[index].tokens, samples[index].prompt_length
        masked = prompt if training.loss_on == "completion" else 0
        labels = [-100] * masked + tokens[masked:]
        return {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels}

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    model = AutoModelForCausalLM.from_pretrained(location.name_or_path, dtype=torch.bfloat16)
    lora = training.lora
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.target_modules),
            task_type="CAUSAL_LM",
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=adapted,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=training.gradient_accumulation_steps,
                max_steps=schedule.total_steps,
                learning_rate=training.learning_rate,
                lr_scheduler_type=training.lr_scheduler,
                warmup_steps=training.warmup_steps,
                weight_decay=training.weight_decay,
                max_grad_norm=training.max_grad_norm,
                bf16=True,
                use_cpu=not torch.cuda.is_available(),
                logging_steps=25,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=[example(index) for index in order],
            data_collator=collate,
            callbacks=[Clock()],
        )
        trainer._get_train_sampler = lambda *_: None  # the order is drawn already
        result = trainer.train()
    per_step = size * training.gradient_accumulation_steps
    trained = order[UNCOUNTED_STEPS * per_step : schedule.total_steps * per_step]
    return {
        "tokens": sum(len(samples[index].tokens) for index in trained),
        "seconds": times[-1] - times[UNCOUNTED_STEPS - 1],
        "mean_loss": result.training_loss,
    }


if __name__ == "__main__":
    main()
