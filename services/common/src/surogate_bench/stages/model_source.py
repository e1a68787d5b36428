"""Locate the base model that a service loads: on the hub, in a folder, built in, or converted and in the store."""

from dataclasses import dataclass
from pathlib import Path

from surogate_bench.contract import MODEL_CONFIG_FILE, MODEL_FOLDER
from surogate_bench.errors import ConfigError
from surogate_bench.inputs.content import model_files, require_same
from surogate_bench.inputs.hub_models import snapshot_of
from surogate_bench.layout import SweepLayout
from surogate_bench.results import PrepareResult
from surogate_bench.specs.model import ModelSpec
from surogate_bench.stages.publication import fetch_stage, read_result
from surogate_bench.store.location import folder_of
from surogate_bench.store.object_store import ObjectStore

_SHIPPED = Path(__file__).parent.parent / "builtin_models"
SHIPPED_MODELS = ("tiny-qwen3-en",)
"""Built-in models that are files of this package."""

CONVERTED_MODELS = ("smollm2-135m",)
"""Built-in models that the prepare stage converts from another package's files and uploads to the store."""


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """The argument for ``from_pretrained`` and vLLM: the model's folder, at the revision that was prepared."""

    name_or_path: str


def locate_model(model: ModelSpec, *, store: ObjectStore, layout: SweepLayout, cache: Path) -> ModelLocation:
    """Locate a model as recorded by the prepare stage, or for that stage itself, before anything is recorded.

    A model of the hub is in the local cache, at the commit that was prepared; a local one must have the content that
    was prepared; a converted one is downloaded into ``cache`` unless the store is local.

    Raises:
        ConfigError: there is no such model on the hub or built in, the folder holds no model, or its files are not
            those prepared.
        TransientError: a model of the hub is not in the cache, and the hub cannot be reached.
        PermanentError: a converted model is missing from the store, or damaged.
    """
    prepared = read_result(store, layout.prepare, PrepareResult)
    if model.hub is not None:
        return ModelLocation(str(snapshot_of(model.hub, (prepared and prepared.model_commit) or model.revision)))
    folder = local_model_folder(model)
    if folder is not None:
        if prepared is not None and (recorded := prepared.inputs.get("model")) is not None:
            require_same(
                recorded, model_files(folder), field="model.path" if model.path else "model.builtin", folder=folder
            )
        return ModelLocation(str(folder))
    if model.builtin not in CONVERTED_MODELS:
        raise ConfigError(
            "there is no such built-in model",
            field="model.builtin",
            value=model.builtin,
            remedy=f"Choose one of {', '.join(SHIPPED_MODELS + CONVERTED_MODELS)}, or set model.hub or model.path.",
        )
    in_place = local_folder(store)
    if in_place is not None:
        return ModelLocation(str(in_place / layout.prepare / MODEL_FOLDER))
    folder = cache / layout.spec_hash
    fetch_stage(store, layout.prepare, folder, under=f"{MODEL_FOLDER}/")
    return ModelLocation(str(folder / MODEL_FOLDER))


def local_model_folder(model: ModelSpec) -> Path | None:
    """Return the folder of a local or built-in model; None for any other.

    Raises:
        ConfigError: the user's folder holds no model.
    """
    if model.path is not None:
        return require_model_folder(model.path)
    return _SHIPPED / str(model.builtin) if model.builtin in SHIPPED_MODELS else None


def require_model_folder(path: Path) -> Path:
    """Check that a folder holds a model in transformers format.

    Raises:
        ConfigError: it does not.
    """
    if not (path / MODEL_CONFIG_FILE).is_file():
        raise ConfigError(
            "is not a model folder: it has no config.json",
            field="model.path",
            value=str(path),
            remedy="Give a folder in transformers format, or use model.hub.",
        )
    return path


def local_folder(store: ObjectStore) -> Path | None:
    """Return the folder of a local store; None for a remote one."""
    return folder_of(store.url) if store.url.startswith("file:") else None
