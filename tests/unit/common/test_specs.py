"""What a sweep file accepts, and what it says about what it does not."""

from datetime import date
from pathlib import Path

import pytest
import yaml
from sweeps import small_document

from surogate_bench.errors import ConfigError, ExitCode
from surogate_bench.specs import load_sweep
from surogate_bench.specs.reference import reference

SWEEPS = Path(__file__).parents[3] / "configs" / "sweeps"


def write(folder: Path, **changes: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(small_document() | changes), encoding="utf-8")
    return path


def test_every_shipped_sweep_is_valid() -> None:
    sweeps = [load_sweep(path) for path in sorted(SWEEPS.glob("*.yaml"))]
    assert {sweep.name for sweep in sweeps} >= {"embedded", "qwen3-0-6b-ro-gsm8k", "smollm2-135m-gsm8k"}


def test_the_reference_sweep_is_the_published_experiment() -> None:
    sweep = load_sweep(SWEEPS / "qwen3-0.6b-ro-gsm8k.yaml")
    training = sweep.training
    assert (sweep.model.hub, sweep.data.hub) == ("Qwen/Qwen3-0.6B", "OpenLLM-Ro/ro_gsm8k")
    assert (training.lora.r, training.lora.alpha, training.lora.dropout) == (16, 32, 0.0)
    assert len(training.lora.target_modules) == 7
    assert (training.micro_batch_size, training.gradient_accumulation_steps, training.max_length) == (2, 4, 2048)
    assert (training.learning_rate, training.lr_scheduler, training.warmup_steps) == (2e-4, "linear", 20)
    assert (training.weight_decay, training.epochs, training.eval_steps, training.packing) == (0.001, 2, 25, True)
    assert [recipe.title for recipe in sweep.recipes] == [
        "BF16", "FP8", "FP4", "QBnB", "QFP8 + fp8-hybrid", "QFP8 + bf16", "QFP4",
    ]  # fmt: skip
    assert (sweep.serving.max_lora_rank, sweep.serving.max_model_len) == (64, 2048)
    assert (sweep.evaluation.num_concurrent, sweep.evaluation.max_retries, sweep.evaluation.num_fewshot) == (50, 3, 0)


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"baseline": {}}, "baseline", "no such field"),
        ({"recipes": ["fp7"]}, "recipes.0", "fp7"),
        ({"recipes": ["bf16", "bf16"]}, "sweep", "bf16 appears more than once"),
        ({"recipes": []}, "recipes", "at least 1"),
        ({"name": "No_Good"}, "name", "No_Good"),
        ({"name": "x" * 41}, "name", "match pattern"),
        ({"seeds": [1, 1]}, "sweep", "each may appear once"),
        ({"seeds": [-1]}, "seeds.0", "greater than or equal to 0"),
        ({"seeds": [0, 2**32]}, "seeds.1", "less than or equal to 4294967295"),
        ({"evaluation": {"limit": 1}}, "evaluation.limit", "greater than or equal to 2"),
        ({"serving": {"max_lora_rank": 513}}, "serving.max_lora_rank", "less than or equal to 512"),
        ({"evaluation": {"keep_from_task": ["data"]}}, "evaluation", "needs its own prompt"),
        (
            {"evaluation": {"keep_from_task": ["num_fewshot"], "num_fewshot": 2}},
            "evaluation",
            "remove num_fewshot from it",
        ),
        ({"training": {}}, "training", "exactly one of epochs and max_steps"),
        ({"training": {"max_steps": 2, "lora": {"r": 128}}}, "sweep", "above serving.max_lora_rank 64"),
        ({"model": {"hub": "a/b", "builtin": "tiny-qwen3-en"}}, "model", "exactly one of hub, path, builtin"),
        ({"model": {"hub": "../../etc/passwd"}}, "model.hub", "../../etc/passwd"),
        ({"data": {"builtin": "word-problems-ro"}}, "data", "needs train_size and test_size"),
        ({"serving": {"extra_args": ["--trust_remote_code"]}}, "serving.extra_args", "never run"),
        (
            {"serving": {"extra_args": ["--port", "80"]}},
            "serving.extra_args",
            "remove --port: the model server",
        ),
        ({"serving": {"extra_args": ["--max_loras=9"]}}, "serving.extra_args", "set serving.max_loras"),
        ({"training": {"max_steps": 2, "learning_rat": 1}}, "training.learning_rat", "Did you mean learning_rate?"),
        ({"training": {"max_steps": 2, "learning_rate": True}}, "training.learning_rate", "unquoted yes"),
        ({"seeds": [True]}, "seeds", "cannot be true or false"),
        ({"training": {"lora": {"rank_pattern": {"q_proj": True}}}}, "training.lora.rank_pattern", "true or false"),
        (
            {"recipes": [{"name": "a", "title": "A", "weight_storage": "nf4", "skip_last_layers": True}]},
            "recipes.0",
            "skip_last_layers cannot be true or false",
        ),
        ({"name": date(2024, 2, 1)}, "name", "must be text"),
        ({"serving": {"zzz": 1}}, "serving.zzz", "Remove it or correct its spelling."),
        ({"data": {"hub": "a/b", "prompt": "no placeholder"}}, "data", "{question}"),
    ],
)
def test_bad_input_is_refused_with_its_field(
    tmp_path: Path, changes: dict[str, object], field: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(tmp_path, **changes))
    assert caught.value.field == field
    assert expected in str(caught.value)
    assert caught.value.exit_code == ExitCode.BAD_INPUT


def test_a_misspelled_section_is_named_and_not_only_missed(tmp_path: Path) -> None:
    document = small_document()
    document["traininq"] = document.pop("training")
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^traininq: there is no such field .*Did you mean training\?$"):
        load_sweep(path)


@pytest.mark.parametrize(
    ("text", "expected"), [("a: [", "not valid YAML"), ("- just\n- a list", "must be a mapping, not list")]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        load_sweep(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_sweep(tmp_path / "nowhere.yaml")


def test_local_paths_are_relative_to_the_sweep_file(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, data={"path": "my-data"}))
    assert sweep.data.path == tmp_path / "my-data"


def test_a_recipe_can_be_spelled_out_in_its_own_file(tmp_path: Path) -> None:
    recipe = {"name": "fp8-no-ends", "title": "FP8, ends in BF16", "weight_storage": "bf16", "compute": "fp8-hybrid"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe | {"skip_first_layers": 1}), encoding="utf-8")
    sweep = load_sweep(write(tmp_path, recipes=["bf16", "mine.yaml"]))
    assert [entry.name for entry in sweep.recipes] == ["bf16", "fp8-no-ends"]
    assert sweep.recipe("fp8-no-ends").skip_first_layers == 1


def test_the_spec_hash_follows_content_and_not_the_order_of_keys(tmp_path: Path) -> None:
    first = load_sweep(write(tmp_path))
    reordered = tmp_path / "reordered.yaml"
    reordered.write_text(yaml.safe_dump(dict(reversed(small_document().items())), sort_keys=False), encoding="utf-8")
    assert load_sweep(reordered).spec_hash == first.spec_hash
    assert load_sweep(write(tmp_path, seeds=[1])).spec_hash != first.spec_hash


def test_the_written_reference_of_settings_is_up_to_date() -> None:
    written = (SWEEPS.parent / "README.md").read_text(encoding="utf-8")
    assert written == reference(), "run `make reference`"


def test_an_unknown_recipe_is_named_once_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(tmp_path, recipes=["bf16", "bf17"]))
    assert str(caught.value).startswith("recipes.1: there is no such recipe (got 'bf17'). Use one of bf16, fp8,")
    assert "more" not in str(caught.value)


def test_new_settings_leave_the_hash_of_a_sweep_without_them_as_it_was() -> None:
    """The hash is where results lie: a store of an earlier version is continued."""
    sweeps = Path(__file__).parents[3] / "configs" / "sweeps"
    hashes = {path.stem: load_sweep(path).spec_hash for path in sweeps.glob("*.yaml")}
    assert hashes["embedded"] == "2ec5cb90ee50"
    embedded = load_sweep(sweeps / "embedded.yaml")
    as_published = embedded.serving.model_copy(update={"under": ("bf16",)})
    assert embedded.model_copy(update={"serving": as_published}).spec_hash == "ae57b591a714"
    assert hashes["qwen3-0.6b-ro-gsm8k"] == "b0e4992dc06c"
