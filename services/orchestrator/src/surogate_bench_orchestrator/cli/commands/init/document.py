"""Convert answers to the document of a sweep: everything that was not answered gets a default."""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from surogate_bench.recipes import RECIPES
from surogate_bench.specs.data import DataFormat
from surogate_bench.specs.evaluation import AS_PUBLISHED, OWN, ServingSpec
from surogate_bench.specs.lora import LoraSpec
from surogate_bench.specs.training import TrainingSpec
from surogate_bench_orchestrator.cli.commands.init.answers import Answers, Facts, Source, TaskAnswer

Document = dict[str, object]
"""A sweep as it is written: sections hold settings or further sections."""

_EPOCHS = 2
_SEEDS = (0, 1)
"""Two, the fewest from which a difference between recipes can be tested."""
_LONGEST_NAME = 40

_SIZES: Mapping[str, object] = {"data.train_size": 1600, "data.validation_size": 100, "data.test_size": 500}
_OF_DATA: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "word-problems-ro": {**_SIZES, "data.prompt": "Întrebare: {question}\nRăspuns:"},
        "word-problems-en": _SIZES,
    }
)
"""Defaults for built-in data, as in configs/sweeps/embedded.yaml."""
_OF_MODEL: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "tiny-qwen3-en": {
            "training.max_steps": 300,
            "training.gradient_accumulation_steps": 1,
            "training.learning_rate": 4e-3,
            "evaluation.max_gen_toks": 128,
        },
        "smollm2-135m": {"training.learning_rate": 5e-4},
    }
)
"""Defaults for built-in models, as in the shipped sweeps."""
_LENGTHS = ("training.epochs", "training.max_steps")
"""Alternatives: the answer of one takes the place of the default of the other, and steps that of epochs."""

_MOST_TEST, _MOST_VALIDATION = 500, 100
"""Records that are held out of a large training split."""

SCORE_THE_DATA = ("ro_gsm8k", "en_gsm8k", "word_problem_choice")
"""Tasks that score the sweep's own test records, whose answers end with ``#### N``."""
_WITHOUT_DATA = "word_problem_choice"
_OWN_DATA_TASK = "gsm8k"
"""The default where the data has nothing to score."""
_WITHOUT_ANSWERS: frozenset[DataFormat] = frozenset({"messages", "text"})
_FURTHER_SIZE = 200
"""Questions of a further task on built-in data."""
_ROMANIAN = re.compile(r"(?<![a-z])ro(?![a-z])")


def document_of(answers: Answers, facts: Facts, *, default_name: str | None = None) -> Document:
    """Return the document of the sweep; it is not validated.

    Args:
        answers: The answers.
        facts: What is known about model and data.
        default_name: Name of the sweep unless it is answered; made of model and data if None.
    """
    settings = dict(answers.settings)
    defaults = _defaults(answers, facts)
    if set(_LENGTHS) & settings.keys() or set(_LENGTHS) <= defaults.keys():
        defaults.pop(_LENGTHS[0])
    if _LENGTHS[0] in settings:
        defaults.pop(_LENGTHS[1], None)
    whole = tuple(f"{path}." for path in settings)  # an answer about a group takes the place of all its defaults
    kept = {path: value for path, value in defaults.items() if not path.startswith(whole)}
    return nested({"name": default_name or _joined_name(answers)} | kept | settings)


def nested(settings: Mapping[str, object]) -> Document:
    """Return settings by path as sections: ``training.lora.r`` becomes ``r`` of ``lora`` of ``training``.

    A group that is given as a whole as well keeps its other settings.
    """
    sections: dict[str, Document] = {}
    for path, value in settings.items():
        section, _, rest = path.partition(".")
        if rest:
            sections.setdefault(section, {})[rest] = value
    names = dict.fromkeys(path.partition(".")[0] for path in settings)
    return {name: _merged(settings.get(name), sections.get(name)) for name in names}


def _merged(whole: object, parts: Document | None) -> object:
    if parts is None:
        return whole
    return (whole if isinstance(whole, dict) else {}) | nested(parts)


def setting_of(document: Mapping[str, object], path: str) -> object:
    """Return a setting of a document by path; None if it is left to the spec."""
    found: object = document
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def has_test_records(answers: Answers, facts: Facts) -> bool:
    """Return whether the sweep's own records have answers that a task can score, as far as that is known."""
    stated = answers.settings.get("data.format")
    return stated not in _WITHOUT_ANSWERS and (facts.data is None or facts.data.has_answers)


def keeps_its_data(answers: Answers, facts: Facts) -> bool:
    """Return whether the primary task scores data of its own."""
    task = primary_task(answers, facts).name
    own = task == _OWN_DATA_TASK or not (task in SCORE_THE_DATA or "evaluation.tasks_dir" in answers.settings)
    return task != _WITHOUT_DATA and (own or not has_test_records(answers, facts))


def primary_task(answers: Answers, facts: Facts) -> TaskAnswer:
    """Return the first task, or the default: GSM8K's scoring of the sweep's own test records, if they have answers."""
    if answers.tasks:
        return answers.tasks[0]
    if not has_test_records(answers, facts):
        return TaskAnswer(_OWN_DATA_TASK)
    return TaskAnswer("ro_gsm8k" if _ROMANIAN.search(answers.data.text.lower()) else "en_gsm8k")


def _defaults(answers: Answers, facts: Facts) -> Document:
    """Return all that is written unless it is answered, by path and in the order of the sweep's fields."""
    model, data = answers.model, answers.data
    recipes = answers.settings.get("recipes", [recipe.name for recipe in RECIPES])
    alone = recipes == [AS_PUBLISHED]
    return {
        "description": f"LoRA fine-tuning of {model.text} on {data.text}.",
        f"model.{model.kind}": model.text,
        f"data.{data.kind}": data.text,
        **(_of_files(answers, facts) if data.kind == "path" else {}),
        **_training(answers, facts),
        "recipes": recipes,
        "seeds": list(_SEEDS),
        "serving.under": [AS_PUBLISHED] if alone else [AS_PUBLISHED, OWN],
        "serving.max_model_len": _fitting(ServingSpec.model_fields["max_model_len"].default, facts),
        **_serving_rank(answers),
        **_evaluation(answers, facts),
        **(_OF_DATA.get(data.text, {}) if data.kind == "builtin" else {}),
        **(_OF_MODEL.get(model.text, {}) if model.kind == "builtin" else {}),
    }


def _training(answers: Answers, facts: Facts) -> Document:
    training, lora = TrainingSpec.model_fields, LoraSpec.model_fields
    rank = answers.settings.get("training.lora.r", lora["r"].default)
    batch = ("micro_batch_size", "gradient_accumulation_steps", "learning_rate")
    return {
        "training.epochs": _EPOCHS,
        "training.max_length": _fitting(training["max_length"].default, facts),
        **{f"training.{name}": training[name].default for name in batch},
        "training.lora.r": rank,
        "training.lora.alpha": 2 * rank if isinstance(rank, int) else lora["alpha"].default,  # the usual scale
        "training.lora.target_modules": list(lora["target_modules"].default),
    }


def _serving_rank(answers: Answers) -> Document:
    rank, highest = answers.settings.get("training.lora.r"), ServingSpec.model_fields["max_lora_rank"].default
    return {"serving.max_lora_rank": rank} if isinstance(rank, int) and rank > highest else {}


def _fitting(length: int, facts: Facts) -> int:
    return length if facts.positions is None else min(length, facts.positions)


def _of_files(answers: Answers, facts: Facts) -> Document:
    """Name fields as they are spelled, and take splits that local data lacks out of the training records."""
    if facts.data is None:
        return {}
    lacks = {"validation", "test"} - facts.data.splits
    if keeps_its_data(answers, facts):
        lacks.discard("test")
    if "data.validation_size" in answers.settings:
        lacks.discard("validation")
    records = facts.data.records
    sizes = {"validation": min(_MOST_VALIDATION, records // 20), "test": min(_MOST_TEST, records // 10)}
    held_out = {f"data.hold_out.{split}": max(2, size) for split, size in sizes.items() if split in lacks}
    return _within("data.fields", dict(facts.data.renamed)) | held_out


def _evaluation(answers: Answers, facts: Facts) -> Document:
    primary, further = primary_task(answers, facts), answers.tasks[1:]
    kept: Document = {"keep_from_task": ["data", "prompt"]} if keeps_its_data(answers, facts) else {}
    shape = answers.settings.get("data.format", facts.data and facts.data.shape)
    chat: Document = {"evaluation.chat_template": True} if shape == "messages" else {}
    if not further and primary.data is None:
        return {"evaluation.task": primary.name, **_within("evaluation", kept), **chat}
    first = {"name": primary.name, "primary": True, **_task_data(primary), **kept}
    return {"evaluation.tasks": [first, *(_entry(task, answers) for task in further)], **chat}


def _within(section: str, settings: Document) -> Document:
    """Return settings of a section by path."""
    return {f"{section}.{name}": value for name, value in settings.items()}


def _entry(task: TaskAnswer, answers: Answers) -> Document:
    folder = answers.settings.get("evaluation.tasks_dir")
    with_folder = folder is not None and task.name not in SCORE_THE_DATA
    return {"name": task.name, **({"tasks_dir": folder} if with_folder else {}), **_task_data(task)}


def _task_data(task: TaskAnswer) -> Document:
    source = task.data
    if source is None and task.name == _WITHOUT_DATA:
        source = Source("builtin", "word-problems-en")
    if source is None:
        return {}
    size: Document = {"test_size": _FURTHER_SIZE} if source.kind == "builtin" else {}
    return {"data": {source.kind: source.text, **size}}


def _joined_name(answers: Answers) -> str:
    """Return a name made of those of model and data."""
    return valid_name("-".join(_last_part(source) for source in (answers.model, answers.data)))


def _last_part(source: Source) -> str:
    last = source.text.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return last.partition(".")[0] if source.kind == "path" else last


def valid_name(text: str) -> str:
    """Return a text as a name of a sweep: a DNS label of at most 40 characters."""
    parts: Iterator[str] = (part for part in re.split(r"[^a-z0-9]+", text.lower()) if part)
    return "-".join(parts)[:_LONGEST_NAME].rstrip("-") or "sweep"
