"""The base weights of a recipe as a checkpoint for other servers: what is refused, and what is recorded with it."""

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from surogate_bench.errors import ConfigError
from surogate_bench.recipes import Recipe, WeightStorage
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.user_paths import require_folder


class ExportFormat(StrEnum):
    """Format of the exported weights."""

    NATIVE = "native"  # as stored in training: compressed-tensors or bitsandbytes
    BF16 = "bf16"  # dequantized


class ExportRecord(BaseModel):
    """Description of an exported checkpoint, and its differences from the weights of training."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sweep: str
    spec_hash: str
    model: str
    """Name of the base model."""
    model_commit: str | None = None
    """Commit of a hub model."""
    recipe: str
    weight_storage: WeightStorage
    """Format of the weights in training."""
    quantization: str | None
    """``quant_method`` and format in ``config.json``; None for bf16."""
    layers: int
    """Linear layers whose weights the recipe stores."""
    weight_bytes: int
    """Size of all tensors in the checkpoint."""
    relative_errors: dict[str, float] = {}
    """Layers whose values are not those of training, with the relative root-mean-square difference."""
    notes: tuple[str, ...] = ()
    """Requirements for servers, one sentence each."""
    versions: dict[str, str] = {}
    """Versions of the packages that determine the bytes."""


def check_export(sweep: RecipeSweep, recipe: str, export_format: ExportFormat, output: Path) -> Recipe:
    """Check everything that can be checked without the model.

    Returns:
        The recipe.

    Raises:
        ConfigError: the sweep has no such recipe, it stores bf16 weights and the native format is requested, or the
            output is not a folder that is absent or empty.
    """
    found = sweep.require_recipe(recipe, field="recipe")
    if export_format is ExportFormat.NATIVE and found.weight_storage is WeightStorage.BF16:
        raise ConfigError(
            "stores its weights in bf16 and quantizes them for each product only, so its base is the published model",
            field="recipe",
            value=recipe,
            remedy="Serve the published model, or write a copy of it with --format bf16.",
        )
    check_output(output)
    return found


def check_output(output: Path) -> None:
    """Check that a folder can be written without replacing anything.

    Raises:
        ConfigError: it is a file, or holds files.
    """
    require_folder(output, field="output")
    try:
        occupied = output.is_dir() and any(output.iterdir())
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", field="output", value=str(output), remedy="Choose another folder."
        ) from error
    if occupied:
        raise ConfigError(
            "is not empty, and nothing is overwritten",
            field="output",
            value=str(output),
            remedy="Choose another folder, or remove it.",
        )
