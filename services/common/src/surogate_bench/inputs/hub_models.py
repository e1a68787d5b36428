"""A model of the Hugging Face hub as a folder of the local cache.

Libraries are given this folder instead of the model's name, which they would resolve in the current folder first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.inputs.content import has_weights

_LOADED = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.safetensors")
_WITHOUT_SAFETENSORS = ("*.bin",)
_NOT_LOADED = ("*/*", "consolidated*", "training_args.bin")
"""Files that are not downloaded: subfolders (other formats, checkpoints), and the same weights in the authors' own
layout."""


def snapshot_of(name: str, revision: str | None) -> Path:
    """Download the files of a model that transformers and vLLM load, unless they are in the cache.

    Args:
        name: Name of the repository.
        revision: Branch, tag or commit; the default branch if None.

    Returns:
        The folder ``<cache>/snapshots/<commit>``, named after the commit.

    Raises:
        ConfigError: there is no such model or revision, access to it is refused, or it has no weights to load.
        TransientError: it is not in the cache, and the hub cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download  # noqa: PLC0415 - the orchestrator's image has none
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415 - as above

    disable_progress_bars()
    with hub_explained(name, field="model.hub", kind="model"):
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=list(_LOADED), ignore_patterns=list(_NOT_LOADED))
        )
        if not has_weights(folder):
            snapshot_download(
                name, revision=folder.name, allow_patterns=list(_WITHOUT_SAFETENSORS), ignore_patterns=list(_NOT_LOADED)
            )
    if not has_weights(folder):
        if constants.HF_HUB_OFFLINE:
            raise _away(name, "model.hub", "model.path")
        raise ConfigError(
            "has no weights in safetensors format",
            field="model.hub",
            value=name,
            remedy="Choose a model with safetensors files; adapters and GGUF files are not base models.",
        )
    return folder


@contextmanager
def hub_explained(name: str, *, field: str, kind: str) -> Iterator[None]:
    """Convert errors of a download from the hub.

    Args:
        name: Name of the repository.
        field: Setting that names it; its last part is replaced by ``path`` in the remedy.
        kind: What the repository holds, for the remedy.

    Raises:
        ConfigError: there is no such repository or revision, or access to it is refused.
        TransientError: the hub cannot be reached.
    """
    from huggingface_hub.errors import (  # noqa: PLC0415 - the orchestrator's image has none
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ConfigError(
            f"cannot be loaded: {str(error).strip()}",
            field=field,
            value=name,
            remedy=f"Check its name and revision; a gated {kind} needs HF_TOKEN.",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, ConnectionError) as error:
        raise _away(name, field, f"{field.rpartition('.')[0]}.path") from error


def _away(name: str, field: str, instead: str) -> TransientError:
    return TransientError(
        f"{field}: {name} is not in the cache and the hub cannot be reached. "
        f"Check the network, or give a local folder as {instead}"
    )
