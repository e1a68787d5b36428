"""Every field of a sweep either determines a stage's result or does not: a new one has to be put on a side."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from sweeps import small_sweep

from surogate_bench.inputs.content import combined, digests_of
from surogate_bench.recipes import Recipe, recipe_by_name
from surogate_bench.results import PrepareResult, ScoredData, SplitInfo
from surogate_bench.specs import ForeignAdapter, ForeignTrainer, RecipeSweep
from surogate_bench.specs.base import Spec
from surogate_bench.specs.data import DataSpec
from surogate_bench.specs.evaluation import EvaluationSpec, ServingSpec
from surogate_bench.specs.lora import LoraSpec
from surogate_bench.specs.tasks import TaskData, TaskEntry
from surogate_bench.specs.training import TrainingSpec
from surogate_bench.stages.identity import (
    BUILTIN_MODELS,
    WayOfServing,
    evaluation_identity,
    foreign_training_identity,
    training_identity,
)
from surogate_bench.stages.local_inputs import local_input

CLASSIFIED: dict[type[Spec], tuple[set[str], set[str]]] = {
    RecipeSweep: (
        {"model", "data", "training", "recipes", "seeds", "engine", "serving", "evaluation", "adapters", "trainers"},
        {"name", "description", "placement", "max_attempts", "train_timeout_s"},
    ),
    DataSpec: (
        # By content: where data comes from, which fields and how many records are taken, and what is generated.
        {
            "hub", "config", "revision", "path", "builtin", "question_field", "answer_field", "train_size",
            "validation_size", "test_size", "seed", "prompt", "completion", "files", "splits", "format", "fields",
            "shuffle", "hold_out", "chat_template", "chat_template_arguments", "loss_on",
        },
        set(),
    ),
    EvaluationSpec: (
        {
            "task", "tasks_dir", "keep_from_task", "num_fewshot", "max_gen_toks", "limit", "chat_template", "metric",
            "tasks",
        },
        {"num_concurrent", "max_retries", "max_empty_fraction", "evaluate_base", "parallel_evaluations", "timeout_s"},
    ),
    # Part of the identity, "gpus" too: gradients of several are summed in another order, and they draw other noise.
    TrainingSpec: (
        {
            "lora", "epochs", "max_steps", "packing", "max_length", "micro_batch_size", "gradient_accumulation_steps",
            "gpus", "learning_rate", "lr_scheduler", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2",
            "adam_epsilon", "max_grad_norm", "loss_on", "eval_steps",
        },
        {"checkpoint_steps"},
    ),
    # As the fields of evaluation and data that they replace for their task; metric and name by those of evaluation.
    TaskEntry: (
        {"name", "tasks_dir", "keep_from_task", "data", "num_fewshot", "metric", "limit", "max_gen_toks"},
        {"primary"},
    ),
    TaskData: ({"hub", "config", "revision", "path", "builtin", "fields", "test_size", "seed", "prompt"}, set()),
    ForeignAdapter: ({"path", "url", "hub", "revision"}, {"name", "trained_under"}),  # by the content of the import
    ForeignTrainer: ({"command", "environment", "image"}, {"name", "trained_under", "timeout_s"}),  # files by content
    ServingSpec: (
        {"max_model_len", "extra_args", "under", "merged"},
        {"max_lora_rank", "max_loras", "gpu_memory_utilization", "kv_cache_gib", "start_timeout_s"},
    ),
}  # fmt: skip
"""Fields that the identities of stages cover, and fields without an effect on results."""


@pytest.mark.parametrize("model", CLASSIFIED, ids=lambda model: model.__name__)
def test_every_field_is_known_to_determine_results_or_not(model: type[Spec]) -> None:
    covered, without_effect = CLASSIFIED[model]
    assert covered.isdisjoint(without_effect)
    assert set(model.model_fields) == covered | without_effect, (
        "extend surogate_bench.stages.identity, or show that the field changes no result, and list it here"
    )


HUB = {"model": {"hub": "lab/model"}}
PREPARED = PrepareResult(
    data={name: SplitInfo(records=8, sha256=name) for name in ("train", "validation", "test")},
    model_source="lab/model",
    model_in_store=False,
    model_commit="1" * 40,
    inputs={"tasks": {"task.yaml": "task"}, "trainers": {"other/0": "script"}},
)
TRAINER = {"name": "other", "command": ["/train.sh", "{request}"], "image": "other:1"}
Identify = Callable[[RecipeSweep, PrepareResult], str | None]


def of_training(sweep: RecipeSweep, prepared: PrepareResult) -> str | None:
    return training_identity(sweep, sweep.recipes[0], 0, prepared)


def of_foreign_training(sweep: RecipeSweep, prepared: PrepareResult) -> str | None:
    return foreign_training_identity(sweep, sweep.trainers[0], 0, prepared)


def of_evaluation(sweep: RecipeSweep, prepared: PrepareResult) -> str | None:
    return evaluation_identity(sweep, prepared, "adapter")


def other_split(name: str) -> dict[str, Any]:
    return {"data": PREPARED.data | {name: SplitInfo(records=8, sha256="other")}}


CHANGED_LORA: dict[str, Any] = {
    "r": 8, "alpha": 8, "dropout": 0.5, "target_modules": ["q_proj"], "use_rslora": True,
    "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 4},
}  # fmt: skip
CHANGED_TRAINING: dict[str, Any] = {
    "epochs": 3.0, "max_steps": 3, "packing": False, "max_length": 64, "micro_batch_size": 1,
    "gradient_accumulation_steps": 1, "learning_rate": 1e-3, "lr_scheduler": "cosine", "warmup_steps": 1,
    "weight_decay": 0.1, "adam_beta1": 0.5, "adam_beta2": 0.5, "adam_epsilon": 1e-3, "max_grad_norm": 0.5,
    "loss_on": "all", "eval_steps": 1,
}  # fmt: skip
IN_TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hub name": ({"model": {"hub": "lab/other"}}, {}),
    "hub commit": ({}, {"model_commit": "2" * 40}),
    "training records": ({}, other_split("train")),
    "validation records": ({}, other_split("validation")),
    "no validation records": ({}, {"data": {"train": PREPARED.data["train"]}}),
    "prompt": ({"data": {"prompt": "{question}"}}, {}),
    "completion": ({"data": {"completion": "{answer}"}}, {}),
    "special tokens": ({}, {"special_tokens": ("<s>",)}),
    **{f"training.{name}": ({"training": {name: value}}, {}) for name, value in CHANGED_TRAINING.items()},
    **{f"lora.{name}": ({"training": {"lora": {name: value}}}, {}) for name, value in CHANGED_LORA.items()},
}
"""What determines a training: a change of the sweep, and one of what its prepare stage found."""

IN_RECIPE_TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "engine": ({"engine": "emulated"}, {}),
    "training.gpus": ({"training": {"gpus": 2}}, {}),  # foreign trainers do not receive it
}
IN_FOREIGN_TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "command": ({"trainers": [TRAINER | {"command": ["/train.sh", "{request}", "--fast"]}]}, {}),
    "script": ({}, {"inputs": {"trainers": {"other/0": "edited"}}}),
    "environment": ({"trainers": [TRAINER | {"environment": {"A": "1"}}]}, {}),
    "image": ({"trainers": [TRAINER | {"image": "other:2"}]}, {}),
}
SHOTS = {"evaluation": {"num_fewshot": 2}}
KEPT_SHOTS = {"evaluation": {"keep_from_task": ["prompt", "num_fewshot"]}}
CHAT = {"evaluation": {"chat_template": True}}
IN_EVALUATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hub name": ({"model": {"hub": "lab/other"}}, {}),
    "hub commit": ({}, {"model_commit": "2" * 40}),
    "test records": ({}, other_split("test")),
    "prompt": ({"data": {"prompt": "{question}"}}, {}),
    "completion": ({"data": {"completion": "{answer}"}}, {}),
    "special tokens": ({}, {"special_tokens": ("<s>",)}),
    "ends of answers": ({}, {"answer_ends": (2,)}),
    "no end of answers": ({}, {"answer_ends": ()}),
    "task": ({"evaluation": {"task": "en_gsm8k"}}, {}),
    "task file": ({}, {"inputs": {"tasks": {"task.yaml": "edited"}}}),
    "keep_from_task": ({"evaluation": {"keep_from_task": ["prompt"]}}, {}),
    "num_fewshot": (SHOTS, {}),
    "max_gen_toks": ({"evaluation": {"max_gen_toks": 17}}, {}),
    "limit": ({"evaluation": {"limit": 4}}, {}),
    "chat_template": (CHAT, {}),
    "metric": ({"evaluation": {"metric": "exact_match,flexible-extract"}}, {}),
    "max_model_len": ({"serving": {"max_model_len": 99}}, {}),
    "extra_args": ({"serving": {"extra_args": ["--enforce-eager"]}}, {}),
}
CASES = [
    *((of_training, change) for change in (IN_TRAININGS | IN_RECIPE_TRAININGS).items()),
    *((of_foreign_training, change) for change in (IN_TRAININGS | IN_FOREIGN_TRAININGS).items()),
    *((of_evaluation, change) for change in IN_EVALUATIONS.items()),
]


@pytest.mark.parametrize(
    ("identify", "sweep", "prepared"),
    [(identify, sweep, prepared) for identify, (_, (sweep, prepared)) in CASES],
    ids=[f"{identify.__name__}: {name}" for identify, (name, _) in CASES],
)
def test_each_thing_that_determines_a_result_changes_its_identity(
    identify: Identify, sweep: dict[str, Any], prepared: dict[str, Any]
) -> None:
    before = identify(small_sweep(**HUB, trainers=[TRAINER]), PREPARED)
    after = identify(small_sweep(**HUB | {"trainers": [TRAINER]} | sweep), PREPARED.model_copy(update=prepared))
    assert before is not None
    assert after is not None
    assert before != after


@pytest.mark.parametrize(("changes", "counts"), [({}, False), (SHOTS, True), (KEPT_SHOTS, True)])
def test_the_records_of_examples_count_where_examples_are_shown(changes: dict[str, Any], counts: bool) -> None:
    sweep, other = small_sweep(**HUB | changes), PREPARED.model_copy(update=other_split("train"))
    assert (of_evaluation(sweep, PREPARED) != of_evaluation(sweep, other)) == counts


def test_the_number_of_examples_counts_also_between_evaluations_that_show_the_same_records() -> None:
    two, three = (small_sweep(**HUB, evaluation={"num_fewshot": number}) for number in (2, 3))
    assert of_evaluation(two, PREPARED) != of_evaluation(three, PREPARED)


def test_arguments_of_a_chat_template_adapters_and_ways_of_serving_identify_an_evaluation() -> None:
    data = {"data": {"chat_template_arguments": {"enable_thinking": False}}}
    assert of_evaluation(small_sweep(**HUB, **CHAT), PREPARED) != of_evaluation(
        small_sweep(**HUB, **CHAT, **data), PREPARED
    )
    sweep, fp8 = small_sweep(**HUB), recipe_by_name("fp8")
    ways = [
        WayOfServing(), WayOfServing(merged=True), WayOfServing(under=fp8), WayOfServing(under=fp8, merged=True),
        WayOfServing(under=fp8, input_scales_sha256="s"), WayOfServing(under=replace(fp8, fp8_margin=1)),
    ]  # fmt: skip
    found = {evaluation_identity(sweep, PREPARED, adapter, way) for adapter in ("a", "b", None) for way in ways}
    assert len(found) == 3 * len(ways)


def test_records_of_a_task_s_own_identify_its_evaluation_unless_they_are_unknown_or_examples_are_shown() -> None:
    sweep = small_sweep(**HUB, evaluation={"task": "gsm8k", "keep_from_task": ["data", "prompt"]})
    own = ScoredData(source="x", split="test", records=8, sha256="a", prompt="task", num_fewshot=0)
    other, shown = own.model_copy(update={"sha256": "b"}), own.model_copy(update={"num_fewshot": 1})
    one, two, three, unknown = (
        evaluation_identity(sweep, PREPARED, "adapter", scored=each) for each in (own, other, shown, None)
    )
    assert one is not None
    assert two not in (one, None)
    assert (three, unknown) == (None, None)


CHANGED_RECIPE: dict[str, tuple[str, Any]] = {
    "weight_storage": ("fp8", "fp8-128x128"), "compute": ("qfp4", "bf16"), "fp8_amax_history_length": ("fp8", 2),
    "fp8_margin": ("fp8", 1), "fp4_profile": ("fp4", "surogate"), "skip_first_layers": ("fp8", 1),
    "skip_last_layers": ("fp8", 1), "on_indivisible": ("fp4", "keep"),
}  # fmt: skip
"""A recipe, and another value, by field."""


@pytest.mark.parametrize(("field", "change"), list(CHANGED_RECIPE.items()), ids=list(CHANGED_RECIPE))
def test_each_setting_of_a_recipe_and_the_seed_identify_a_training(field: str, change: tuple[str, Any]) -> None:
    sweep, recipe = small_sweep(**HUB), recipe_by_name(change[0])
    other = replace(recipe, **{field: type(getattr(recipe, field))(change[1])})
    runs = [(recipe, 0), (recipe, 1), (other, 0)]
    assert len({training_identity(sweep, each, seed, PREPARED) for each, seed in runs}) == len(runs)


def test_the_changes_above_cover_every_field() -> None:
    assert set(CHANGED_TRAINING) == set(TrainingSpec.model_fields) - {"lora", "checkpoint_steps", "gpus"}
    assert set(CHANGED_LORA) == set(LoraSpec.model_fields)
    assert set(CHANGED_RECIPE) == {field.name for field in fields(Recipe)} - {"name", "title"}


def test_a_converted_model_is_known_by_its_content_unless_an_earlier_version_recorded_none() -> None:
    sweep = small_sweep(model={"builtin": "smollm2-135m"})
    contents = ({}, {"model": {"model.safetensors": "0" * 64}}, {"model": {"model.safetensors": "1" * 64}})
    for identify in (of_training, of_evaluation):
        found = {identify(sweep, PREPARED.model_copy(update={"inputs": PREPARED.inputs | each})) for each in contents}
        assert len(found - {None}) == 3


def test_a_built_in_model_is_known_by_its_name_while_it_is_unchanged_and_else_by_its_content() -> None:
    sweep = small_sweep()
    found = local_input(sweep, "model")
    assert found is not None
    shipped = digests_of(found.files)
    assert combined(shipped) == BUILTIN_MODELS["tiny-qwen3-en"]
    contents = ({}, {"model": shipped}, {"model": shipped | {"model.safetensors": "0" * 64}})
    unknown, as_shipped, changed = (PREPARED.model_copy(update={"inputs": PREPARED.inputs | each}) for each in contents)
    for identify in (of_training, of_evaluation):
        assert identify(sweep, unknown) == identify(sweep, as_shipped)
        assert identify(sweep, changed) not in (identify(sweep, as_shipped), None)
