"""A sweep as a Kubernetes resource and back."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import small_document, small_sweep

from surogate_bench.errors import ConfigError
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench_orchestrator.resource.model import parse_resource, resource_of

SHIPPED = sorted((Path(__file__).parents[4] / "configs" / "sweeps").glob("*.yaml"))
SWEEPS = [path for path in SHIPPED if not load_sweep(path).trainers]
SPEC = {field: value for field, value in small_document().items() if field != "name"}
RECIPES = ["bf16", "fp8", "fp4", "qbnb"]
OWN_RECIPE = {
    "name": "nf4-tail", "title": "NF4, last layer whole", "weight_storage": "nf4", "compute": "bf16",
    "skip_last_layers": 1,
}  # fmt: skip


def trainer(**changes: Any) -> dict[str, Any]:
    return {"name": "other", "command": ["python3", "/train.py"]} | changes


def resource(metadata_name: str = "small", **changes: Any) -> dict[str, Any]:
    metadata = {"name": metadata_name, "namespace": "lab", "uid": "u-1", "generation": 3}
    return {"metadata": metadata, "spec": {**SPEC, **changes}}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_shipped_sweep_survives_the_way_into_a_resource_and_back(path: Path) -> None:
    sweep = load_sweep(path)
    back = parse_resource(resource_of(sweep, "lab"))
    assert back.sweep == sweep
    assert back.sweep.spec_hash == sweep.spec_hash
    assert (back.name, back.namespace, back.suspend) == (sweep.name, "lab", False)


@st.composite
def sweeps(draw: st.DrawFn) -> RecipeSweep:
    length = draw(st.sampled_from(["epochs", "max_steps"]))
    amount = draw(st.floats(0.01, 100) if length == "epochs" else st.integers(1, 10**9))
    recipes = draw(st.lists(st.sampled_from(["bf16", "fp8", "qfp4"]), min_size=1, unique=True))
    return parse_sweep({
        **SPEC,
        "name": draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)),
        "description": draw(st.text(max_size=50)),
        "training": {length: amount, "learning_rate": draw(st.floats(1e-9, 1.0)), "packing": draw(st.booleans())},
        "recipes": [*recipes, *draw(st.sampled_from([[], [OWN_RECIPE]]))],
        "seeds": draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5, unique=True)),
        "serving": {"extra_args": draw(st.lists(st.text(max_size=10), max_size=3))},
        "evaluation": {"limit": draw(st.none() | st.integers(2, 1000))},
    })  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(sweeps())
def test_any_sweep_survives_the_way_into_a_resource_and_back(sweep: RecipeSweep) -> None:
    assert parse_resource(resource_of(sweep)).sweep.spec_hash == sweep.spec_hash


def test_a_sweep_with_adapters_survives_the_way_into_a_resource_and_back() -> None:
    adapters = [{"name": "a", "url": "s3://bucket/a"}, {"name": "b", "hub": "lab/b", "trained_under": "fp8"}]
    sweep = parse_resource(resource(adapters=adapters)).sweep
    assert parse_resource(resource_of(sweep)).sweep.spec_hash == sweep.spec_hash
    assert parse_resource(resource(adapters=[])).sweep.spec_hash == parse_resource(resource()).sweep.spec_hash


def test_a_sweep_with_trainers_in_images_survives_the_way_into_a_resource_and_back() -> None:
    entry = trainer(image="registry.example.com/team/other:1", environment={"A": "$(B)"}, timeout_s=60)
    sweep = small_sweep(trainers=[entry])
    assert parse_resource(resource_of(sweep)).sweep == sweep


def test_a_trainer_without_an_image_or_with_a_script_of_this_machine_is_not_sent_to_a_cluster() -> None:
    for entry, field in ((trainer(), "image"), (trainer(image="a", command=["./train"]), "command")):
        with pytest.raises(ConfigError) as caught:
            resource_of(small_sweep(trainers=[entry]))
        assert (caught.value.field, bool(caught.value.remedy)) == (f"trainers.other.{field}", True)


def test_a_manifest_spells_every_setting_out_and_holds_no_null() -> None:
    spec = resource_of(load_sweep(SWEEPS[0]))["spec"]
    assert spec["evaluation"]["max_gen_toks"] == 128
    assert spec["engine"] == "auto"
    assert spec["recipes"][0]["weight_storage"] == "bf16"
    assert "suspend" not in spec
    assert "name" not in spec
    assert "limit" not in spec["evaluation"]


def test_a_misspelled_section_is_named_and_not_only_missed() -> None:
    misspelled = resource()
    misspelled["spec"]["traininq"] = misspelled["spec"].pop("training")
    with pytest.raises(ConfigError) as caught:
        parse_resource(misspelled)
    assert caught.value.field == "spec.traininq"


def test_suspension_and_scheduling_are_read_beside_the_sweep() -> None:
    read = parse_resource(resource(suspend=True, scheduling={"queue_name": "gpus", "slots": 2}))
    assert read.suspend is True
    assert (read.scheduling.queue_name, read.scheduling.slots) == ("gpus", 2)
    assert read.sweep.spec_hash == parse_resource(resource()).sweep.spec_hash
    assert (read.uid, read.generation) == ("u-1", 3)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"training": {"max_steps": 2, "lora": {"r": 0}}}, "spec.training.lora.r", "0"),
        ({"recipes": ["bf16", "bf16"]}, "spec", "bf16 appears more than once"),
        ({"recipes": ["fp9"]}, "spec.recipes.0", "fp9"),
        ({"recipes": [{**OWN_RECIPE, "odd": 1}]}, "spec.recipes.0.odd", "no such field"),
        ({"sweeep": 1}, "spec.sweeep", "no such field"),
        ({"name": "other"}, "spec.name", "metadata.name"),
        ({"suspend": "yes"}, "spec.suspend", "true or false"),
        ({"reuse": "no"}, "spec.reuse", "true or false"),
        ({"scheduling": {"slots": 0}}, "spec.scheduling.slots", "may be changed"),
        ({"recipes": ["bf16", "fp8"], "seeds": list(range(501))}, "spec.seeds", "1,002 runs"),
        ({"evaluation": {"tasks": ["a", {"name": "b", "limit": 1}]}}, "spec.evaluation.tasks.1.limit", "(got 1)"),
        ({"data": {}}, "spec.data", "exactly one of hub, path, builtin"),
        ({"trainers": [trainer()]}, "spec.trainers.other.image", "is required on Kubernetes"),
        ({"trainers": [trainer(image="A")]}, "spec.trainers.0.image", "(got 'A')"),
        (
            {"trainers": [trainer(image="a", command=["python3", "../train.py"])]},
            "spec.trainers.other.command",
            "to the sweep file, which the image does not have (got '../train.py'). Put the file into the image",
        ),
        ({"trainers": [trainer(image="a")], "seeds": list(range(501))}, "spec.seeds", "1,002 runs"),
    ],
)
def test_what_cannot_work_is_named_with_its_field_and_a_remedy(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_resource(resource(**changes))
    assert caught.value.field == field
    assert words in str(caught.value)
    assert caught.value.remedy


def test_a_name_that_is_too_long_is_a_mistake_of_the_metadata() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_resource(resource("a" * 41))
    assert caught.value.field == "metadata.name"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": {"path": "/models/base"}}, "model.path"),
        ({"data": {"path": "/data/questions"}}, "data.path"),
        ({"evaluation": {"tasks_dir": "/tasks"}}, "evaluation.tasks_dir"),
        ({"adapters": [{"name": "theirs", "path": "/adapters/theirs"}]}, "adapters.theirs.path"),
    ],
)
def test_a_local_folder_is_not_sent_to_a_cluster_but_may_stand_in_a_resource(
    changes: dict[str, Any], field: str
) -> None:
    mounted = parse_resource(resource(**changes)).sweep
    with pytest.raises(ConfigError, match="mounted into the pods") as caught:
        resource_of(mounted)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"seeds": list(range(251)), "recipes": RECIPES}, "seeds", "1,004 runs, and a RecipeSweep may have 1,000"),
        (
            {"seeds": list(range(126)), "recipes": RECIPES, "evaluation": {"tasks": ["a", "b", "c", "d", "e"]}},
            "seeds",
            "504 runs, and a RecipeSweep with 4 further tasks may have 500",
        ),
        ({"trainers": [trainer(image="a:1", command=["run", *["x" * 4000] * 30])]}, "", "bytes as JSON"),
    ],
)
def test_what_does_not_fit_into_an_object_of_the_cluster_is_refused(
    changes: dict[str, Any], field: str, message: str
) -> None:
    sweep = small_sweep(**changes)
    for where, call in (("spec", lambda: parse_resource(resource(**changes))), ("", lambda: resource_of(sweep, None))):
        with pytest.raises(ConfigError, match=message) as caught:
            call()
        assert caught.value.field == ".".join(part for part in (where, field) if part) or not field
