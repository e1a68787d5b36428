"""What determines a stage's result: of two stages with equal identity only one needs to be computed.

A training run is determined by the contents of model and data, the training settings, recipe, seed and engine; an
evaluation by the adapter's content, the base model, the test data, the task, how answers are sampled and what serves
them. Everything else in a sweep file (its name, other recipes and seeds, deadlines, how many requests are in flight)
changes no result and is excluded. The way of serving is excluded too if the base is served as published and no adapter
is merged into it, so that results of versions without other ways stay valid.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import TypeAdapter

from surogate_bench.inputs.content import combined
from surogate_bench.inputs.task_files import STOCK_TASKS
from surogate_bench.inputs.trainer_commands import argument_name
from surogate_bench.recipes import Recipe, WeightStorage
from surogate_bench.results import PrepareResult, ScoredData
from surogate_bench.specs import ForeignTrainer, RecipeSweep
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.specs.model import ModelSpec
from surogate_bench.stages.manifest import Manifest

TRAINING_VERSION = 2
"""Incremented whenever a change of the trainer's numerics gives different adapters from the same settings.

2: stored NVFP4 is scaled in fp32 on a GPU too; windows, soft-capping and sinks are part of packed attention.
"""

SCORING_VERSION = 1
"""Incremented whenever a change of the evaluator gives different scores from the same answers."""

SERVING_VERSION = 1
"""Incremented whenever a change of a forward pass under a recipe, of calibration, or of merged weights gives different
answers."""

VLLM_VERSION = "0.32.0"
"""The locked version of vLLM: answers of other versions are not reused."""

BUILTIN_TASKS: Mapping[str, str] = MappingProxyType(
    {
        "ro_gsm8k": "cd3fbfbfbf2f5a859a0ffe7a2e62bb8fa74e35c59e821f9b109f52c027242392",
        "en_gsm8k": "1c8e3abd548eb7be1eeb6bbb8d22dceea3afaa2957bab5de13adf58e0ff624a2",
        "word_problem_choice": "1616d54f5fe3f9b12bd604bc8bc4d45a426fcc04d6fcf1106389744d1b4f9019",
    }
)
"""SHA-256 over the files of each task in ``configs/tasks`` as shipped (:func:`surogate_bench.inputs.content.combined`).

An edited file is identified by its content, as a user's own task is. If a change of a shipped file changes scores,
increment :data:`SCORING_VERSION` too.
"""

BUILTIN_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "tiny-qwen3-en": "b54e4e0a488b7d7fed7c510d2651e0a67ef600f73ca5e3863988b6b1d103b5a6",
        "smollm2-135m": "78271a472c17c1a71b7ded4241937227b2820186b3d0d3428d1c2f18192f7368",
    }
)
"""SHA-256 over the files of each built-in model (:func:`surogate_bench.inputs.content.combined`): they are part of this
package, or the prepare stage, with packages of the locked versions, converts them from another one.

A model as recorded here is identified by its name, as in results of earlier versions; any other content by its digest
too. Never change an entry, or results of the old model are taken for those of the new one: give that another name.
"""

_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
# training.gpus has an effect: several processes sum gradients in another order, and draw other noise than one does.
_WITHOUT_EFFECT_ON_ADAPTERS = {"checkpoint_steps"}


def training_identity(sweep: RecipeSweep, recipe: Recipe, seed: int, prepared: PrepareResult) -> str | None:
    """Return the SHA-256 (hex) over what determines a training run; None if the model's content is not known."""
    model = model_identity(sweep.model, prepared)
    if model is None:
        return None
    return _digest(
        stage="train",
        model=model,
        data=_trained_content(prepared),
        texts=_texts(sweep, prepared),
        training=sweep.training.model_dump(mode="json", exclude=_WITHOUT_EFFECT_ON_ADAPTERS),
        recipe=_RECIPE.dump_python(recipe, mode="json", exclude={"name", "title"}),
        seed=seed,
        engine=sweep.engine,
    )


def foreign_training_identity(
    sweep: RecipeSweep, trainer: ForeignTrainer, seed: int, prepared: PrepareResult
) -> str | None:
    """Return the SHA-256 (hex) over what determines a foreign training run as far as this software knows it.

    Command, environment and image (its reference), with the content of the files that the command names; model, data
    and settings as for a recipe. Other software is not covered. None if the model's content is unknown.
    """
    model = model_identity(sweep.model, prepared)
    if model is None:
        return None
    files = prepared.inputs.get("trainers", {})
    return _digest(
        stage="foreign-train",
        model=model,
        data=_trained_content(prepared),
        texts=_texts(sweep, prepared),
        training=sweep.training.model_dump(mode="json", exclude={*_WITHOUT_EFFECT_ON_ADAPTERS, "gpus"}),
        command=[files.get(argument_name(trainer, index), text) for index, text in enumerate(trainer.command)],
        environment=trainer.environment,
        seed=seed,
        **({"image": trainer.image} if trainer.image else {}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOfServing:
    """How the base model of an evaluation is served."""

    under: Recipe | None = None
    """None for the base as published."""
    input_scales_sha256: str | None = None
    """Digest of the scales that the training run stored for FP8 inputs; None if it stored none. It has an effect only
    where :func:`uses_input_scales`."""
    merged: bool = False
    """Whether the adapter is merged into the base."""


_AS_PUBLISHED = WayOfServing()


def evaluation_identity(
    sweep: RecipeSweep,
    prepared: PrepareResult,
    adapter_sha256: str | None,
    way: WayOfServing = _AS_PUBLISHED,
    *,
    scored: ScoredData | None = None,
) -> str | None:
    """Return the SHA-256 (hex) over what determines an evaluation; None if model, task or data are not known.

    Args:
        sweep: Defines how answers are sampled and scored.
        prepared: Identifies model and test data.
        adapter_sha256: Digest of the adapter; None for the unmodified base model.
        way: How the base is served.
        scored: The records that a task with data of its own scores, as its check or evaluation found them.
    """
    model, evaluation = model_identity(sweep.model, prepared), sweep.evaluation
    task = _task_identity(evaluation, prepared)
    data = _scored_content(evaluation, prepared, scored)
    if model is None or task is None or data is None:
        return None
    return _digest(
        stage="eval",
        model=model,
        adapter=adapter_sha256,
        data=data,
        texts=_texts(sweep, prepared),
        evaluation=evaluation.model_dump(
            mode="json",
            include={"task", "keep_from_task", "num_fewshot", "max_gen_toks", "limit", "chat_template", "metric"},
        ),
        serving=sweep.serving.model_dump(mode="json", include={"max_model_len", "extra_args"}),
        **({"task": task} if task else {}),
        **({"chat": sweep.data.chat_template_arguments} if evaluation.chat_template else {}),
        **({} if prepared.answer_ends is None else {"ends": prepared.answer_ends}),
        **({"under": _serving_identity(sweep, prepared, way.under, way.input_scales_sha256)} if way.under else {}),
        **({"merged": True} if way.merged else {}),
    )


def _trained_content(prepared: PrepareResult) -> list[str | None]:
    """Return the digests of the records that are trained and validated on.

    Other texts than questions and answers are prepared as they are trained on: rendered, with what counts.
    """
    return [prepared.data[split].sha256 if split in prepared.data else None for split in ("train", "validation")]


def _texts(sweep: RecipeSweep, prepared: PrepareResult) -> list[str]:
    """Return what records become part of: the prompt, the completion, and tokens that the tokenizer adds."""
    return [sweep.data.prompt, sweep.data.completion, *(prepared.special_tokens or ())]


def _scored_content(
    evaluation: EvaluationSpec, prepared: PrepareResult, scored: ScoredData | None
) -> list[str | None] | None:
    """Return the digests of the records that are scored and of those that are shown; None if they are not known."""
    if "data" in evaluation.keep_from_task:  # of the hub, where it may change
        # Which records of its own a task shows as examples is not recorded.
        return ["task", scored.sha256] if scored is not None and scored.num_fewshot == 0 else None
    if "test" not in prepared.data:
        return None
    few_shot = evaluation.num_fewshot or "num_fewshot" in evaluation.keep_from_task
    shown = prepared.data.get("train") if few_shot else None
    return [prepared.data["test"].sha256, shown.sha256 if shown else None]


def uses_input_scales(under: Recipe | None) -> bool:
    """Return whether a base served under a recipe scales its inputs as its training did, or by calibration."""
    return under is not None and under.scales_inputs


def _serving_identity(
    sweep: RecipeSweep, prepared: PrepareResult, under: Recipe, input_scales_sha256: str | None
) -> dict[str, object]:
    """Return what determines a recipe's forward pass, and its name, which is part of the result."""
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
    """Return whether this version of the trainer would compute the same adapter as a finished run of equal identity.

    Args:
        manifest: Manifest of the finished run.
        recipe: Recipe of the run.
        prepared: Result of the prepare stage of the sweep that would refer to it; has what older
            versions did not record.
    """
    if manifest.procedure_version == TRAINING_VERSION:
        return True
    on_gpu_otherwise = recipe.weight_storage is WeightStorage.NVFP4 and manifest.hardware.gpu is not None
    return manifest.procedure_version == 1 and prepared.full_attention is True and not on_gpu_otherwise


def _task_identity(evaluation: EvaluationSpec, prepared: PrepareResult) -> str | None:
    """Return the digest of the task's content; empty for an unmodified shipped task; None if it is not known."""
    files = prepared.inputs.get("tasks")
    if files:
        content = combined(files)
        return "" if content == BUILTIN_TASKS.get(evaluation.task) else content
    comes_along = evaluation.task in BUILTIN_TASKS or evaluation.task in STOCK_TASKS
    return "" if comes_along and evaluation.tasks_dir is None else None


def model_identity(model: ModelSpec, prepared: PrepareResult) -> list[str] | None:
    """Return the commit of a hub model, the digest of a local one, or the name of a built-in one that is unchanged."""
    files = prepared.inputs.get("model")
    if model.path is not None:
        return ["content", combined(files)] if files else None
    if model.hub is not None:
        return ["hub", model.hub, prepared.model_commit] if prepared.model_commit else None
    if model.builtin is None:
        return None
    known = BUILTIN_MODELS.get(model.builtin)
    content = combined(files) if files else known  # versions that recorded no digests had the same model
    return ["builtin", model.builtin] if content is None or content == known else ["builtin", model.builtin, content]


def _digest(**parts: object) -> str:
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
