"""Every field of a sweep either determines a stage's result or does not: a new one has to be put on a side."""

import pytest

from surogate_bench.specs import ForeignAdapter, ForeignTrainer, RecipeSweep
from surogate_bench.specs.base import Spec
from surogate_bench.specs.data import DataSpec
from surogate_bench.specs.evaluation import EvaluationSpec, ServingSpec
from surogate_bench.specs.tasks import TaskData, TaskEntry
from surogate_bench.specs.training import TrainingSpec

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
        "extend surogate_bench.stage_identity, or show that the field changes no result, and list it here"
    )
