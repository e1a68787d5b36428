"""Foreign trainers for tests: scripts that follow the contract with PEFT, or break it in one way."""

import json
import sys
from pathlib import Path
from typing import Any

TRAINER = '''"""Leaves an adapter with random matrices, as a trainer would, but imports nothing heavy."""
import json, os, sys
from pathlib import Path

request = json.loads(Path(os.environ["SUROGATE_BENCH_TRAINER_REQUEST"]).read_text(encoding="utf-8"))
output = Path(request["output"])
print(f"training {request['run']} on {request['model']}", flush=True)


def save(rank=4, **config):
    """Save an adapter of the layers of a template, with another seed, rank and configuration."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    template, folder = Path(os.environ["TEMPLATE"]), output / "adapter"
    generator = np.random.default_rng(request["seed"])
    shapes = {name: matrix.shape for name, matrix in load_file(template / "adapter_model.safetensors").items()}
    shapes = {n: (rank, shape[1]) if "lora_A" in n else (shape[0], rank) for n, shape in shapes.items()}
    matrices = {n: 0.05 * generator.standard_normal(shape, dtype=np.float32) for n, shape in shapes.items()}
    folder.mkdir()
    save_file(matrices, folder / "adapter_model.safetensors")
    settings = json.loads((template / "adapter_config.json").read_text()) | {"r": rank} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def report(*lines):
    with (output / "metrics.jsonl").open("a", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line) + "\\n")
            file.flush()


def edit(change):
    from safetensors.numpy import load_file, save_file

    path = output / "adapter" / "adapter_model.safetensors"
    matrices = load_file(path)
    change(matrices)
    save_file(matrices, path)
'''
"""The beginning of every script; what it does follows."""

GOOD = """
save()
for step in range(1, request["steps"] + 1):
    report({"step": step, "loss": 3.0 / step, "tokens": 100, "seconds": 0.5, "epoch": 0.1})
report({"step": request["steps"], "eval_loss": 1.25})
"""


def write_trainer(folder: Path, body: str = GOOD, *, name: str = "trainer.py") -> Path:
    """Write a script that begins as every trainer's does."""
    path = folder / name
    path.write_text(f"{TRAINER}\n{body}", encoding="utf-8")
    return path


def entry(script: Path, template: Path, **changes: Any) -> dict[str, Any]:
    """Return the entry of a sweep that runs a script.

    Args:
        script: From :func:`write_trainer`.
        template: Folder of an adapter of rank 4, whose layers it saves matrices of.
        changes: Other fields, or other values.
    """
    environment = {"TEMPLATE": str(template)} | changes.pop("environment", {})
    return {"name": "other", "command": [sys.executable, str(script)], "environment": environment} | changes


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Read lines of JSON."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
