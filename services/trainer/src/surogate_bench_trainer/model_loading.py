"""Loading from transformers: quiet, and with errors that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.logs import take_over_logs


@contextmanager
def loading_model(name: str) -> Iterator[None]:
    """Silence transformers while a model is loaded, and translate how that fails.

    Raises:
        TransientError: it is not in the cache, and the hub cannot be reached.
        ConfigError: there is no such model, or its files cannot be used.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled  # noqa: PLC0415 - start-up time
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
        raise ConfigError(
            f"cannot be loaded: {error}",
            field="model",
            value=name,
            remedy="Check its name, revision or folder; a gated model needs HF_TOKEN.",
        ) from error
