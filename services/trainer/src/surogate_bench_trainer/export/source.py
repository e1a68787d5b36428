"""The base model of an export: where it is, whether it can be exported, and how it is loaded."""

from dataclasses import dataclass
from pathlib import Path

from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench.recipes.precisions import STORAGES
from surogate_bench.stages.model_source import ModelLocation, locate_model
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import ExportRequest
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_quantization.engines import select_engine
from surogate_bench_trainer.model.loading import loading_model
from surogate_bench_trainer.model.recipe import apply_recipe
from surogate_bench_trainer.prepare.base_model.checkpoint_files import checkpoint_headers
from surogate_bench_trainer.prepare.base_model.config_file import check_config_file
from surogate_bench_trainer.prepare.base_model.conversion import convert_smollm2, is_converted
from surogate_bench_trainer.training.setup import load_base, training_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A base model's files."""

    folder: Path
    commit: str | None
    """Commit of a hub model; None for others."""


def find_source(request: ExportRequest, store: ObjectStore, cache: Path) -> Source:
    """Find the base model, the same as was prepared where the sweep was, and check its files.

    Raises:
        ConfigError: there is no such model, it is quantized already, it cannot be trained here, or files are missing.
        TransientError: the hub or the store cannot be reached.
    """
    folder = Path(_locate(request, store, cache).name_or_path)
    checkpoint_headers(folder)
    with loading_model(str(folder)):
        raw, _ = PreTrainedConfig.get_config_dict(folder)
    check_config_file(raw, known=str(raw.get("model_type")) in CONFIG_MAPPING)
    return Source(folder=folder, commit=folder.name if request.sweep.model.hub else None)


def _locate(request: ExportRequest, store: ObjectStore, cache: Path) -> ModelLocation:
    model = request.sweep.model
    if is_converted(model) and read_manifest(store, request.layout.prepare) is None:
        convert_smollm2(cache)
        return ModelLocation(str(cache))
    return locate_model(model, store=store, layout=request.layout, cache=cache)


def load_stored(source: Source, recipe: Recipe) -> PreTrainedModel:
    """Load the model as training does, and put its weights into the recipe's storage.

    The precision of products plays no part: storage does not depend on it, and a recipe whose products this machine
    cannot compute can still be exported.

    Raises:
        ConfigError: the model cannot be loaded, or does not fit the recipe.
    """
    device = training_device()
    model, _ = load_base(ModelLocation(str(source.folder)), device)
    if recipe.weight_storage is not WeightStorage.BF16:
        storing = _storing(recipe)
        apply_recipe(model, storing, engine=select_engine(storing, device), seed=0, keeping=recipe)
    return model


def _storing(recipe: Recipe) -> Recipe:
    """Return a recipe of the same storage with products in bf16."""
    needs_blocks = STORAGES[recipe.weight_storage].input_multiple > 1
    return Recipe(
        name=recipe.name,
        title=recipe.title,
        weight_storage=recipe.weight_storage,
        compute=ComputePrecision.BF16,
        skip_first_layers=recipe.skip_first_layers,
        skip_last_layers=recipe.skip_last_layers,
        on_indivisible="pad" if recipe.on_indivisible == "pad" and needs_blocks else "refuse",
    )
