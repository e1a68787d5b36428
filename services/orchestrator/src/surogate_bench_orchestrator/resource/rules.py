"""Constraints between fields of a RecipeSweep, as CEL rules of the API server.

They are equal to the validators of the Pydantic models; tests compare both. A field whose items have more than one type
(``recipes``) is not declared to CEL, hence ``dyn``.
"""

from typing import Any

from surogate_bench.specs.adapters import ONE_ADAPTER_SOURCE
from surogate_bench.specs.data import (
    BUILTIN_NEEDS_SIZES,
    COMPLETION_NEEDS_ANSWER,
    CONFIG_NEEDS_HUB,
    PROMPT_NEEDS_QUESTION,
)
from surogate_bench.specs.evaluation import NO_REMOTE_CODE
from surogate_bench.specs.lora import ALL_LINEAR, ALL_LINEAR_ALONE
from surogate_bench.specs.model import ONE_SOURCE, REVISION_NEEDS_HUB
from surogate_bench.specs.sweep import EACH_SEED_ONCE
from surogate_bench.specs.tasks import BUILTIN_TASK_NEEDS_SIZE, SEED_NEEDS_BUILTIN
from surogate_bench.specs.training import GPUS_SHARE_EVENLY, ONE_LENGTH

Rule = dict[str, Any]

_ONE_SOURCE: Rule = {
    "rule": "[has(self.hub), has(self.path), has(self.builtin)].exists_one(given, given)",
    "message": ONE_SOURCE,
}

_REVISION_NEEDS_HUB: Rule = {
    "rule": "!has(self.revision) || has(self.hub)",
    "message": f"{REVISION_NEEDS_HUB}: remove it",
}
_CONFIG_NEEDS_HUB: Rule = {"rule": "!has(self.config) || has(self.hub)", "message": f"{CONFIG_NEEDS_HUB}: remove it"}

NAME_RULE: Rule = {
    "rule": "self.metadata.name.matches('^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$')",
    "message": (
        "metadata.name must have at most 40 lower-case letters, digits and dashes, as it becomes part of "
        "other names: choose a shorter or simpler name"
    ),
}

IMAGE_REQUIRED = "is required on Kubernetes, where the command runs in a container of its own"
NO_LOCAL_FILES = "is a path relative to the sweep file, which the image does not have"
FILES_IN_IMAGE = "put the file into the image, and name it by its path there"

MAX_RUNS = 1000
"""Recipes and foreign trainers times seeds: the status has a row for each run, and an object may have 1.5 MiB."""
TASKS_PER_ROW = 4
"""Further tasks whose accuracies take as much of that as the rest of a row."""
MAX_REQUEST_BYTES = 100 * 1024
"""Length of a sweep as JSON: a pod has up to two requests with it in its annotations, which may have 256 KiB."""

RULES: dict[str, list[Rule]] = {
    "ModelSpec": [
        _ONE_SOURCE,
        _REVISION_NEEDS_HUB,
    ],
    "DataSpec": [
        _ONE_SOURCE,
        _CONFIG_NEEDS_HUB,
        _REVISION_NEEDS_HUB,
        {
            "rule": "!has(self.builtin) || (has(self.train_size) && has(self.test_size))",
            "message": BUILTIN_NEEDS_SIZES,
        },
        {"rule": "self.prompt.contains('{question}')", "message": PROMPT_NEEDS_QUESTION},
        {"rule": "self.completion.contains('{answer}')", "message": COMPLETION_NEEDS_ANSWER},
    ],
    "TaskData": [
        _ONE_SOURCE,
        _CONFIG_NEEDS_HUB,
        _REVISION_NEEDS_HUB,
        {"rule": "self.seed == 0 || has(self.builtin)", "message": SEED_NEEDS_BUILTIN},
        {"rule": "!has(self.builtin) || has(self.test_size)", "message": BUILTIN_TASK_NEEDS_SIZE},
        {"rule": "self.prompt.contains('{question}')", "message": PROMPT_NEEDS_QUESTION},
    ],
    "ForeignAdapter": [
        {
            "rule": "[has(self.path), has(self.url), has(self.hub)].exists_one(given, given)",
            "message": ONE_ADAPTER_SOURCE,
        },
        _REVISION_NEEDS_HUB,
    ],
    "LoraSpec": [
        {
            "rule": f"size(self.target_modules) == 1 || !self.target_modules.exists(each, each == '{ALL_LINEAR}')",
            "message": ALL_LINEAR_ALONE,
        }
    ],
    "TrainingSpec": [
        {
            "rule": "has(self.epochs) != has(self.max_steps)",
            "message": ONE_LENGTH,
        },
        {"rule": "self.gradient_accumulation_steps % self.gpus == 0", "message": GPUS_SHARE_EVENLY},
    ],
    "ServingSpec": [
        {
            "rule": "self.extra_args.all(given, !given.replace('_', '-').contains('trust-remote-code'))",
            "message": f"extra_args: {NO_REMOTE_CODE}",
        }
    ],
    "RecipeSweep": [
        {
            "rule": "self.training.lora.r <= self.serving.max_lora_rank",
            "message": "training.lora.r is above serving.max_lora_rank: raise max_lora_rank or lower r",
        },
        {
            "rule": "!has(self.training.lora.rank_pattern) || self.training.lora.rank_pattern.all(layer, "
            "self.training.lora.rank_pattern[layer] <= self.serving.max_lora_rank)",
            "message": "a rank of training.lora.rank_pattern is above serving.max_lora_rank: raise max_lora_rank or "
            "lower it",
        },
        {
            "rule": f"(size(dyn(self).recipes) + size(self.trainers)) * size(self.seeds) <= {MAX_RUNS}",
            "message": f"recipes and trainers times seeds are more than {MAX_RUNS} runs: split the sweep",
        },
    ],
}
"""Rules by name of the model."""

FIELD_RULES: dict[tuple[str, str], list[Rule]] = {
    ("RecipeSweep", "adapters"): [
        {
            "rule": "self.all(one, self.exists_one(other, other.name == one.name))",
            "message": "adapters: each name may appear once: rename the repeated one",
        }
    ],
    ("RecipeSweep", "trainers"): [
        {
            "rule": "self.all(one, self.exists_one(other, other.name == one.name))",
            "message": "trainers: each name may appear once: rename the repeated one",
        },
        {
            "rule": "self.all(one, has(one.image))",
            "message": f"trainers: image {IMAGE_REQUIRED}: set it to an image that has the command",
        },
        {
            "rule": "self.all(one, !one.command.exists(part, part.startsWith('./') || part.startsWith('../')))",
            "message": f"trainers: an argument of command {NO_LOCAL_FILES}: {FILES_IN_IMAGE}",
        },
    ],
    ("RecipeSweep", "seeds"): [
        {
            "rule": "self.all(seed, self.exists_one(other, other == seed))",
            "message": f"{EACH_SEED_ONCE}: remove the repeated one",
        }
    ],
}
"""Rules by model and field."""


def immutable(name: str) -> Rule:
    """Return the rule that forbids changes of a field, for the field itself."""
    return {"rule": "self == oldSelf", "message": _immutable_message(name)}


def immutable_untyped(name: str) -> Rule:
    """Return the rule that forbids changes of a field whose items have more than one type, for the object around it.

    As an item of a list its comparison has a cost that the API server can bound.
    """
    return {"rule": f"[dyn(self).{name}] == [dyn(oldSelf).{name}]", "message": _immutable_message(name)}


def _immutable_message(name: str) -> str:
    return (
        f"{name} cannot be changed, as results belong to one experiment (only suspend, reuse and scheduling can): "
        "create a RecipeSweep of another name, or delete this one first"
    )
