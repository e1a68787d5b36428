"""What determines a stage's result: two stages of equal identity need to be computed once.

A training run is determined by the contents of model and data, the training settings, recipe, seed and engine; an
evaluation by the adapter's content, the base model, the test data, the task, how answers are sampled and what serves
them. Everything else in a sweep file (its name, other recipes and seeds, deadlines, how many requests are in flight)
changes no result and is left out. So is, for a base served as published, that it is: stores of versions that served in
no other way stay valid.
"""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from surogate_bench.content import combined
from surogate_bench.manifest import Manifest
from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench.results import PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.specs.model import ModelSpec
from surogate_bench.task_files import STOCK_TASKS

TRAINING_VERSION = 2
"""Raised whenever a change of the trainer's numerics gives other adapters from the same settings.

2: stored NVFP4 is scaled in fp32 on a GPU too; windows, soft-capping and sinks are part of packed attention.
"""

SCORING_VERSION = 1
"""Raised whenever a change of the evaluator gives other scores from the same answers."""

VLLM_VERSION = "0.32.0"
"""The locked version: answers of another one are not taken for this one's."""

BUILTIN_TASKS: Mapping[str, str] = MappingProxyType(
    {"ro_gsm8k": "cd3fbfbfbf2f5a859a0ffe7a2e62bb8fa74e35c59e821f9b109f52c027242392"}
)
"""SHA-256 over the files of each task in ``configs/tasks`` as shipped (:func:`surogate_bench.content.combined`).

An edited one is known by its content, as a task of the user's own. Where a change of a shipped file changes scores,
:data:`SCORING_VERSION` is raised too.
"""

_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
_WITHOUT_EFFECT_ON_ADAPTERS = {"checkpoint_steps"}


def training_identity(sweep: RecipeSweep, recipe: Recipe, seed: int, prepared: PrepareResult) -> str | None:
    """SHA-256 (hex) over what determines a training run; None where the model's content is not known."""
    model = _model_identity(sweep.model, prepared)
    if model is None:
        return None
    return _digest(
        stage="train",
        model=model,
        data=[prepared.data[split].sha256 if split in prepared.data else None for split in ("train", "validation")],
        texts=[sweep.data.prompt, sweep.data.completion, *(prepared.special_tokens or ())],
        training=sweep.training.model_dump(mode="json", exclude=_WITHOUT_EFFECT_ON_ADAPTERS),
        recipe=_RECIPE.dump_python(recipe, mode="json", exclude={"name", "title"}),
        seed=seed,
        engine=sweep.engine,
    )


def evaluation_identity(
    sweep: RecipeSweep,
    prepared: PrepareResult,
    adapter_sha256: str | None,
    under: Recipe | None = None,
    input_scales_sha256: str | None = None,
) -> str | None:
    """SHA-256 (hex) over what determines an evaluation; None where model or task are not known by content.

    Args:
        sweep: Says how answers are sampled and scored.
        prepared: Says which model and test data.
        adapter_sha256: Content of the adapter; None for the untouched base model.
        under: Recipe that the base is served under; None for the base as published.
        input_scales_sha256: Content of the scales that the training kept for FP8 inputs; None where it kept none. It
            has an effect only where :func:`uses_input_scales`.
    """
    model, evaluation = _model_identity(sweep.model, prepared), sweep.evaluation
    task = _task_identity(evaluation, prepared)
    if model is None or task is None or "test" not in prepared.data:
        return None
    if "data" in evaluation.keep_from_task:  # of the hub, where it may change
        return None
    few_shot = evaluation.num_fewshot or "num_fewshot" in evaluation.keep_from_task
    shown = prepared.data.get("train") if few_shot else None
    return _digest(
        stage="eval",
        model=model,
        adapter=adapter_sha256,
        data=[prepared.data["test"].sha256, shown and shown.sha256],
        texts=[sweep.data.prompt, sweep.data.completion, *(prepared.special_tokens or ())],
        evaluation=evaluation.model_dump(
            mode="json", include={"task", "keep_from_task", "num_fewshot", "max_gen_toks", "limit"}
        ),
        serving=sweep.serving.model_dump(mode="json", include={"max_model_len", "extra_args"}),
        **({"task": task} if task else {}),
        **({"under": _serving_identity(sweep, prepared, under, input_scales_sha256)} if under else {}),
    )


def uses_input_scales(under: Recipe | None) -> bool:
    """Whether a base served under a recipe scales its inputs as training left them, or as calibrated."""
    return under is not None and under.compute is ComputePrecision.FP8_HYBRID


def _serving_identity(
    sweep: RecipeSweep, prepared: PrepareResult, under: Recipe, input_scales_sha256: str | None
) -> dict[str, Any]:
    """Describe how a recipe's forward pass is computed; with its name, which the result repeats."""
    calibration = prepared.data.get("train")  # its prompts, where no training left scales
    return {
        "recipe": _RECIPE.dump_python(under, mode="json", exclude={"title"}),
        "engine": sweep.engine,
        **(
            {"input_scales": input_scales_sha256, "calibration": calibration and calibration.sha256}
            if uses_input_scales(under)
            else {}
        ),
    }


def trains_alike(manifest: Manifest, recipe: Recipe, prepared: PrepareResult) -> bool:
    """Whether this version of the trainer would make the adapter of a finished run of equal identity.

    Args:
        manifest: Of the finished run.
        recipe: Its recipe.
        prepared: Of the sweep that wants to refer to it, for what older versions did not record of the same model.
    """
    if manifest.procedure_version == TRAINING_VERSION:
        return True
    on_gpu_otherwise = recipe.weight_storage is WeightStorage.NVFP4 and manifest.hardware.gpu is not None
    return manifest.procedure_version == 1 and prepared.full_attention is True and not on_gpu_otherwise


def _task_identity(evaluation: EvaluationSpec, prepared: PrepareResult) -> str | None:
    """Content of the task; empty for one that comes along, as it was shipped; None where it is not known."""
    files = prepared.inputs.get("tasks")
    if files:
        content = combined(files)
        return "" if content == BUILTIN_TASKS.get(evaluation.task) else content
    comes_along = evaluation.task in BUILTIN_TASKS or evaluation.task in STOCK_TASKS
    return "" if comes_along and evaluation.tasks_dir is None else None


def _model_identity(model: ModelSpec, prepared: PrepareResult) -> list[str] | None:
    """The commit of a hub model, the content of a local one; a built-in one is that of this version of the product."""
    if model.path is not None:
        files = prepared.inputs.get("model")
        return ["content", combined(files)] if files else None
    if model.hub is not None:
        return ["hub", model.hub, prepared.model_commit] if prepared.model_commit else None
    return ["builtin", model.builtin] if model.builtin is not None else None


def _digest(**parts: Any) -> str:  # noqa: ANN401 - JSON
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
