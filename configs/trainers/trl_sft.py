"""Trains a row of a sweep with TRL's SFTTrainer: ``python trl_sft.py REQUEST.json``; see docs/trainers.md.

Needs trl, peft, transformers and datasets: ``pip install trl`` into the environment of the interpreter that the sweep
names. Samples are padded rather than packed, with as many of them in a step as the sweep's own recipes take on average.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

Request = dict[str, Any]


def arguments_of(request: Request, *, cuda: bool) -> dict[str, Any]:
    """Return the arguments of ``trl.SFTConfig`` that correspond to a request."""
    training = request["training"]
    accumulation = training["gradient_accumulation_steps"]
    return {
        "output_dir": str(Path(request["output"]) / "trainer"),
        "max_steps": request["steps"],
        "per_device_train_batch_size": max(1, round(request["samples_per_step"] / accumulation)),
        "per_device_eval_batch_size": 8,
        "gradient_accumulation_steps": accumulation,
        "max_length": training["max_length"],
        "packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "learning_rate": training["learning_rate"],
        "lr_scheduler_type": training["lr_scheduler"],
        "warmup_steps": training["warmup_steps"],
        "weight_decay": training["weight_decay"],
        "adam_beta1": training["adam_beta1"],
        "adam_beta2": training["adam_beta2"],
        "adam_epsilon": training["adam_epsilon"],
        "max_grad_norm": training["max_grad_norm"],
        "optim": "adamw_torch",
        "seed": request["seed"],
        "data_seed": request["seed"],
        "eval_strategy": "steps",
        "eval_steps": training["eval_steps"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "gradient_checkpointing": False,
        "bf16": False,  # the model is in bf16 already; the adapter stays in fp32
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
    }


def lora_of(request: Request) -> dict[str, Any]:
    """Return the arguments of ``peft.LoraConfig``."""
    lora = request["training"]["lora"]
    return {
        "r": lora["r"],
        "lora_alpha": lora["alpha"],
        "lora_dropout": lora["dropout"],
        "target_modules": lora["target_modules"],
        "use_rslora": lora.get("use_rslora", False),
        "rank_pattern": lora.get("rank_pattern", {}),
        "alpha_pattern": lora.get("alpha_pattern", {}),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


def columns_of(path: str) -> dict[str, list[list[int]]]:
    """Read tokens and labels; a label of -100 does not count in the loss."""
    with Path(path).open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return {
        "input_ids": [line["input_ids"] for line in lines],
        "labels": [
            [token if counts else -100 for token, counts in zip(line["input_ids"], line["loss_mask"], strict=True)]
            for line in lines
        ],
    }


class MetricsFile:
    """Writes ``metrics.jsonl`` from the logs of transformers' Trainer, one line a step or validation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokens = 0
        self.began = self.seconds = 0.0

    def begin_step(self) -> None:
        """Start the clock of a step."""
        self.began = time.perf_counter()

    def end_step(self) -> None:
        """Stop it: validation does not count."""
        self.seconds = time.perf_counter() - self.began

    def log(self, step: int, logs: dict[str, Any]) -> None:
        """Write a line for a step (with ``loss``) or a validation (with ``eval_loss``); other logs have neither."""
        line: dict[str, Any] = {"step": step}
        if "eval_loss" in logs:
            line["eval_loss"] = logs["eval_loss"]
        elif "loss" in logs:
            line |= {name: logs[name] for name in ("loss", "learning_rate", "grad_norm") if name in logs}
            line["seconds"] = self.seconds
            if "num_tokens" in logs:
                line["tokens"] = int(logs["num_tokens"]) - self.tokens
                self.tokens = int(logs["num_tokens"])
        if len(line) > 1:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({name: float(value) for name, value in line.items()} | _whole(line)) + "\n")


def _whole(line: dict[str, Any]) -> dict[str, int]:
    return {name: int(line[name]) for name in ("step", "tokens") if name in line}


def train(request: Request, model: object, peft_config: object = None) -> None:
    """Train, and leave the adapter in the output folder.

    Args:
        request: From the file.
        model: The base model, or one that has an adapter already.
        peft_config: ``peft.LoraConfig`` of the adapter to attach; None if the model has one.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback, TrainerState
    from trl import SFTConfig, SFTTrainer

    output = Path(request["output"])
    metrics = MetricsFile(output / "metrics.jsonl")

    class Report(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            metrics.begin_step()

        def on_step_end(self, *_: object, **__: object) -> None:
            metrics.end_step()

        def on_log(
            self, _args: object, state: TrainerState, _control: object, logs: dict[str, Any], **_: object
        ) -> None:
            metrics.log(state.global_step, logs)

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**arguments_of(request, cuda=torch.cuda.is_available())),
        train_dataset=Dataset.from_dict(columns_of(request["train"])),
        eval_dataset=Dataset.from_dict(columns_of(request["validation"])),
        processing_class=AutoTokenizer.from_pretrained(request["model"]),
        peft_config=peft_config,
        callbacks=[Report()],
    )
    trainer.train()
    trainer.model.save_pretrained(output / "adapter")


def main() -> None:
    """Train as the request on the command line says."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if request["trained_under"] not in {None, "bf16"}:
        sys.exit(f"trained_under is {request['trained_under']}, and this script trains under bf16 alone")
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    if request["threads"]:
        torch.set_num_threads(request["threads"])
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.bfloat16)
    train(request, model, LoraConfig(**lora_of(request)))


if __name__ == "__main__":
    main()
