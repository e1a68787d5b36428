"""Trains a row of a sweep with Surogate: ``python surogate_sft.py REQUEST.json``; see docs/trainers.md.

Not run by the tests of surogate-bench, which have no GPU: only the settings, the records and the metrics below are
tested. Needs surogate (github.com/invergent-ai/surogate, read at commit 524fb77) on a GPU, in the environment of the
interpreter that the sweep names.

Surogate's own tokenizer always applies a chat template, which neither the sweep nor its evaluation uses. So the records
are written as tokens, in Surogate's file format, and its training starts from there. Its optimizer is AdamW with 8-bit
states, where the sweep's own recipes keep them in fp32.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Request = dict[str, Any]
PRECISIONS: dict[str | None, dict[str, Any]] = {
    None: {"recipe": "bf16"},
    "bf16": {"recipe": "bf16"},
    "fp8": {"recipe": "fp8-hybrid"},
    "fp4": {"recipe": "nvfp4"},
    "qbnb": {"recipe": "bf16", "qlora_bnb": True, "qlora_bnb_block_size": 64, "qlora_bnb_double_quant": True},
    "qfp8-fp8-hybrid": {"recipe": "fp8-hybrid", "qlora_fp8": True},
    "qfp8-bf16": {"recipe": "bf16", "qlora_fp8": True},
    "qfp4": {"recipe": "fp8-hybrid", "qlora_fp4": True},
}
"""Surogate's settings by ``trained_under``."""
PAD = 0
"""Token after the last sample of a sequence; it counts nowhere."""


def settings_of(request: Request, folder: Path) -> dict[str, Any]:
    """Return the settings of ``surogate sft``, which are written as YAML.

    Args:
        request: From the file.
        folder: Surogate's output folder.

    Raises:
        ValueError: there is no such recipe in Surogate.
    """
    training, lora = request["training"], request["training"]["lora"]
    under = request["trained_under"]
    if under not in PRECISIONS:
        raise ValueError(f"trained_under is {under}; use one of {', '.join(filter(None, PRECISIONS))}")
    dataset = {"type": "instruction", "instruction_field": "prompt", "output_field": "completion"}
    return {
        "run_name": request["run"],
        "model": request["model"],
        "output_dir": str(folder),
        "log_file": str(folder / "log.json"),
        "resume_from_checkpoint": False,
        "save_steps": request["steps"] + 1,
        "gpus": 1,
        "max_steps": request["steps"],
        "eval_steps": training["eval_steps"],
        "per_device_train_batch_size": training["micro_batch_size"],
        "gradient_accumulation_steps": training["gradient_accumulation_steps"],
        "sequence_len": training["max_length"],
        "sample_packing": training["packing"],
        "learning_rate": training["learning_rate"],
        "lr_scheduler_type": training["lr_scheduler"],
        "warmup_steps": training["warmup_steps"],
        "weight_decay": training["weight_decay"],
        "max_grad_norm": training["max_grad_norm"],
        "optimizer": "adamw_8bit",
        "adamw_beta1": training["adam_beta1"],
        "adamw_beta2": training["adam_beta2"],
        "adamw_epsilon": training["adam_epsilon"],
        "train_seed": request["seed"],
        "eval_seed": request["seed"],
        "lora": True,
        "lora_rank": lora["r"],
        "lora_alpha": lora["alpha"],
        "lora_dropout": lora["dropout"],
        "lora_target_modules": lora["target_modules"],
        "merge_adapter": False,
        "datasets": [{"path": request["train"], **dataset}],
        "validation_datasets": [{"path": request["validation"], **dataset}],
        **PRECISIONS[under],
    }


def documents_of(path: str) -> Iterator[dict[str, list[int]]]:
    """Yield tokens and masks; Surogate's masks are of the positions that predict a token, one before it."""
    with Path(path).open(encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            yield {"tokens": line["input_ids"], "mask": [*line["loss_mask"][1:], 0]}


def metrics_of(log: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Convert the entries of Surogate's log, a JSON array, to lines of ``metrics.jsonl``; steps count from 1."""
    for entry in log:
        if entry.get("log") == "step":
            yield {
                "step": entry["step"] + 1,
                "loss": entry["loss"],
                "learning_rate": entry["lr"],
                "grad_norm": entry["norm"],
                "tokens": entry["step_tokens"],
                "seconds": entry["duration_ms"] / 1000,
            }
        elif entry.get("log") == "eval":
            yield {"step": entry["step"], "eval_loss": entry["loss"]}


def train(request: Request, folder: Path) -> None:
    """Write Surogate's settings and records into ``folder``, and train there."""
    import numpy as np
    import yaml
    from surogate.core.config.loader import load_config
    from surogate.core.config.sft_config import SFTConfig
    from surogate.train.sft import SurogateSFT
    from surogate.train.tokenize import TokenizedDataFileWriter, pack_and_write, write_padded
    from surogate.utils.dict import DictDefault

    path = folder / "surogate.yaml"
    path.write_text(yaml.safe_dump(settings_of(request, folder), sort_keys=False), encoding="utf-8")
    config = load_config(SFTConfig, str(path))
    command = SurogateSFT(config, DictDefault({"config": str(path)}))
    files = {"train": folder / "train-000.bin", "validation": folder / "eval-000.bin"}
    for split, target in files.items():
        packed = split == "train" and request["training"]["packing"]
        documents = (
            {name: np.asarray(x, np.int32) for name, x in each.items()} for each in documents_of(request[split])
        )
        size = config.tokenizer.vocab_size
        with TokenizedDataFileWriter(str(target), size, masking=True, non_overlapping=not packed) as writer:
            write = pack_and_write if packed else write_padded
            write(writer, documents, request["training"]["max_length"], PAD)
    command.train_with_oom_recovery([str(files["train"])], [str(files["validation"])])


def main() -> None:
    """Train as the request on the command line says, and leave adapter and metrics."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    output = Path(request["output"])
    folder = output / "surogate"
    folder.mkdir()
    try:
        settings_of(request, folder)
    except ValueError as error:
        sys.exit(str(error))
    train(request, folder)
    lines = metrics_of(json.loads((folder / "log.json").read_text(encoding="utf-8")))
    (output / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (output / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy2(folder / name, output / "adapter" / name)


if __name__ == "__main__":
    main()
