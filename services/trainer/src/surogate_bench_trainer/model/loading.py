"""Loading of models with transformers: without its log output, and with errors that name a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from surogate_bench.errors import ConfigError, TransientError
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
        OSError, ValueError: disk, memory or network failed, which is not caused by the model.
    """
    from huggingface_hub.errors import (  # noqa: PLC0415 - start-up time
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        StrictDataclassError,
    )
    from transformers.utils import logging  # noqa: PLC0415 - start-up time

    take_over_logs("huggingface_hub")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError) as error:
        causes = (error, error.__cause__, error.__context__)
        if any(isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled) for cause in causes):
            raise TransientError(
                f"model: {name} is not in the cache and the hub cannot be reached. "
                "Check the network, or give a local folder as model.path"
            ) from error
        if is_transient(error):
            raise
        if "trust_remote_code" in str(error):
            raise ConfigError(
                "needs Python code from the model's repository, which is never run",
                field="model",
                value=name,
                remedy="Use a model whose architecture and tokenizer are part of transformers.",
            ) from error
        raise ConfigError(
            f"cannot be loaded: {' '.join(str(error).split())}",
            field="model",
            value=name,
            remedy="Check its name, revision or folder; a gated model needs HF_TOKEN.",
        ) from error
    except (LookupError, TypeError, AttributeError, StrictDataclassError) as error:
        raise _unreadable(name, error) from error
    except Exception as error:
        if type(error) is not Exception:  # the tokenizers library raises the base class
            raise
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> ConfigError:
    """Return the error for files with other content than transformers expects."""
    return ConfigError(
        f"has files that transformers cannot read: {type(error).__name__}: {shortened(' '.join(str(error).split()))}",
        field="model",
        value=name,
        remedy="Correct or copy again config.json and the tokenizer's files; later versions of transformers may write "
        "them in another form.",
    )


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
