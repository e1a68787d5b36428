"""Loading of models with transformers: without its log output, and with errors that name a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surogate_bench.errors import BenchError, ConfigError, TransientError
from surogate_bench.inputs.reading.text import shortened
from surogate_bench.processes.logs import take_over_logs
from surogate_bench.processes.service import is_transient

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@contextmanager
def loading_model(name: str) -> Iterator[None]:
    """Silence transformers while a model is loaded, and translate its errors.

    Raises:
        TransientError: the model is not in the cache, and the hub cannot be reached.
        ConfigError: the model does not exist, or its files cannot be used.
        OSError, RuntimeError, ImportError: disk, memory, network, device or installation failed, which is not caused by
            the model.
    """
    from transformers.utils import logging  # noqa: PLC0415 - start-up time

    take_over_logs("huggingface_hub")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (BenchError, ImportError, MemoryError):
        raise
    except Exception as error:
        if (explained := _explained(error, name)) is None:
            raise
        raise explained from error


def _explained(error: Exception, name: str) -> BenchError | None:
    """Return what an error says about the model; None if the model did not cause it.

    The content of a model's files may make transformers raise anything.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled  # noqa: PLC0415 - start-up time

    causes = (error, error.__cause__, error.__context__)
    if any(isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled) for cause in causes):
        return TransientError(
            f"model: {name} is not in the cache and the hub cannot be reached. "
            "Check the network, or give a local folder as model.path"
        )
    of_device = isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError | RecursionError)
    if is_transient(error) or of_device:
        return None
    if "trust_remote_code" in str(error):
        return ConfigError(
            "needs Python code from the model's repository, which is never run",
            field="model",
            value=name,
            remedy="Use a model whose architecture and tokenizer are part of transformers.",
        )
    plain = isinstance(error, OSError | ValueError) or type(error).__module__ != "builtins"  # "KeyError: 'nonsense'"
    kind = "" if plain else f"{type(error).__name__}: "
    return ConfigError(
        f"cannot be loaded: {kind}{shortened(' '.join(str(error).split()))}",
        field="model",
        value=name,
        remedy=_remedy(name),
    )


def _remedy(name: str) -> str:
    if not Path(name).is_dir():
        return "Check its name and revision; a gated model needs HF_TOKEN."
    return "Check the files of that folder: config.json, tokenizer and weights, as transformers saves them, in UTF-8."


def check_loaded(model: "PreTrainedModel", loading: dict[str, Any], device: "torch.device") -> None:
    """Check that a model matches its checkpoint, and that the device can train it.

    The prepare stage refuses such models, unless they have changed since or only headers were read.

    Args:
        model: The loaded model.
        loading: transformers' loading info.
        device: Device to train on.

    Raises:
        ConfigError: tensors are missing or not finite, or the device does not support the model's attention.
    """
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if loading[kind]:
            raise _unusable(model, f"the checkpoint does not fit the architecture: {kind} {sorted(loading[kind])[:4]}")
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise _unusable(model, f"{name} has NaN or infinite values")
    softcap = getattr(model.config, "attn_logit_softcapping", None)
    sinks = any(name.endswith("sinks") for name, _ in model.named_parameters())
    if device.type == "cuda" and (softcap or sinks):
        feature = "soft-capping" if softcap else "sinks"
        raise _unusable(model, f"packed attention with {feature} is supported on a CPU only")


def _unusable(model: "PreTrainedModel", problem: str) -> ConfigError:
    return ConfigError(problem, field="model", value=model.config.model_type, remedy="Use another model.")
