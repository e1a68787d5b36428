"""Trains a row of a sweep with Unsloth: ``python unsloth_sft.py REQUEST.json``; see docs/trainers.md.

Not run by the tests of surogate-bench, which have no GPU: only the arguments below are tested. Needs unsloth on a GPU,
in the environment of the interpreter that the sweep names. Data, optimizer and metrics are those of trl_sft.py, which
must lie beside this file.
"""

import json
import sys
from pathlib import Path
from typing import Any

Request = dict[str, Any]
PRECISIONS = {None: False, "bf16": False, "qbnb": True}
"""Whether the base weights are loaded in 4 bits, by ``trained_under``."""


def model_arguments(request: Request) -> dict[str, Any]:
    """Return the arguments of ``FastLanguageModel.from_pretrained``, without the type.

    Raises:
        ValueError: Unsloth does not train under this recipe.
    """
    under = request["trained_under"]
    if under not in PRECISIONS:
        names = ", ".join(str(name) for name in PRECISIONS if name)
        raise ValueError(f"trained_under is {under}, and Unsloth trains under {names}")
    return {
        "model_name": request["model"],
        "max_seq_length": request["training"]["max_length"],
        "load_in_4bit": PRECISIONS[under],
    }


def lora_arguments(request: Request) -> dict[str, Any]:
    """Return the arguments of ``FastLanguageModel.get_peft_model``."""
    lora = request["training"]["lora"]
    return {
        "r": lora["r"],
        "lora_alpha": lora["alpha"],
        "lora_dropout": lora["dropout"],
        "target_modules": lora["target_modules"],
        "bias": "none",
        "use_gradient_checkpointing": False,
        "random_state": request["seed"],
    }


def main() -> None:
    """Train as the request on the command line says."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        arguments = model_arguments(request)
    except ValueError as error:
        sys.exit(str(error))
    from unsloth import FastLanguageModel  # isort: skip - before torch and transformers, which it changes

    import torch
    from trl_sft import train

    model, _ = FastLanguageModel.from_pretrained(dtype=torch.bfloat16, **arguments)
    train(request, FastLanguageModel.get_peft_model(model, **lora_arguments(request)))


if __name__ == "__main__":
    main()
