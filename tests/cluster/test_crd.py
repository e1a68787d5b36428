"""What a real API server makes of RecipeSweeps."""

import copy
from pathlib import Path
from typing import Any

import pytest
from real_cluster.tools import kubectl

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.specs import load_sweep
from surogate_bench_orchestrator.resource import API_VERSION, PLURAL
from surogate_bench_orchestrator.resource.model import parse_resource, resource_of
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("recipesweeps")]

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "sweeps").glob("*.yaml"))
SWEEPS = [path for path in SHIPPED if not load_sweep(path).trainers]
EMBEDDED = next(path for path in SWEEPS if path.stem == "embedded")
OWN_RECIPE = {"name": "own", "title": "Own", "weight_storage": "nf4", "compute": "bf16"}
TRAINER = {"name": "other", "image": "registry.example.com:5000/team/other:1", "command": ["train", "{request}"]}
Manifest = dict[str, Any]


class Sweeps:
    """The RecipeSweeps of a namespace, as kubectl treats them: unknown fields are refused."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self.path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"

    def create(self, manifest: Manifest) -> None:
        assert self._api.create(f"{self.path}?fieldValidation=Strict", manifest)

    def get(self, name: str) -> Manifest:
        found = self._api.get(f"{self.path}/{name}")
        assert found is not None
        return found

    def change(self, name: str, spec: Manifest) -> Manifest:
        changed = self._api.patch(f"{self.path}/{name}?fieldValidation=Strict", {"spec": spec})
        assert changed is not None
        return changed

    def apply(self, manifest: Manifest) -> Manifest:
        return self._api.apply(f"{self.path}/{manifest['metadata']['name']}", manifest, manager="test", force=False)


@pytest.fixture
def sweeps(api: Api, namespace: str) -> Sweeps:
    return Sweeps(api, namespace)


def manifest(**changes: Any) -> Manifest:
    """The embedded sweep; keys like ``training__lora__r`` change its spec, and None removes."""
    made = copy.deepcopy(resource_of(load_sweep(EMBEDDED)))
    for path, value in changes.items():
        *sections, last = path.split("__")
        target = made["spec"]
        for section in sections:
            target = target[section]
        if value is None:
            del target[last]
        else:
            target[last] = value
    return made


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_shipped_sweep_is_stored_as_it_is_and_applying_it_again_changes_nothing(sweeps: Sweeps, path: Path) -> None:
    sweep = load_sweep(path)
    first = sweeps.apply(resource_of(sweep))
    second = sweeps.apply(resource_of(sweep))
    assert parse_resource(first).sweep == sweep
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def test_what_is_left_out_is_filled_in_with_the_models_defaults(sweeps: Sweeps) -> None:
    made = manifest(serving=None, evaluation=None, seeds=None, training={"max_steps": 2}, recipes=["bf16", OWN_RECIPE])
    sweeps.create(made)
    stored = sweeps.get("embedded")
    assert (stored["spec"]["suspend"], stored["spec"]["reuse"]) == (False, True)
    assert stored["spec"]["training"]["lora"]["r"] == 16
    assert stored["spec"]["evaluation"]["num_concurrent"] == 50
    assert parse_resource(stored).sweep == parse_resource(made).sweep


def test_the_first_of_a_list_of_tasks_is_primary_as_on_one_machine(sweeps: Sweeps) -> None:
    sweeps.create(manifest(evaluation={"tasks": [{"name": "en_gsm8k"}, {"name": "arc_easy"}]}))
    evaluation = parse_resource(sweeps.get("embedded")).sweep.evaluation
    assert (evaluation.task, evaluation.further_tasks) == ("en_gsm8k", ("arc_easy",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sweeep": 1}, 'unknown field "spec.sweeep"'),
        ({"training__lora__rank": 8}, 'unknown field "spec.training.lora.rank"'),
        ({"training__lora__r": 128}, "raise max_lora_rank or lower r"),
        ({"training__lora__r": 0}, "spec.training.lora.r"),
        ({"training__learning_rate": 0}, "spec.training.learning_rate"),
        ({"training__epochs": 1.0}, "set exactly one of epochs and max_steps"),
        ({"training__max_steps": None}, "set exactly one of epochs and max_steps"),
        ({"training__lora__target_modules": [""]}, "spec.training.lora.target_modules[0]"),
        ({"training__lora__target_modules": ["all-linear", "v_proj"]}, "all-linear selects every layer"),
        ({"training__lora__rank_pattern": {"v_proj": 512}}, "a rank of training.lora.rank_pattern is above"),
        ({"model": {"hub": "a/b", "builtin": "tiny-qwen3-en"}}, "set exactly one of hub, path, builtin"),
        ({"model": {}}, "set exactly one of hub, path, builtin"),
        ({"model__revision": "main"}, "revision only applies to hub"),
        ({"data__revision": "main"}, "revision only applies to hub"),
        ({"data__config": "main"}, "config only applies to hub"),
        (
            {"evaluation__tasks": [{"name": "b", "data": {"hub": "a/b", "seed": 1}}]},
            "seed only applies to a built-in data set",
        ),
        ({"data__test_size": None}, "needs train_size and test_size"),
        ({"data__prompt": "?"}, "prompt must contain {question}"),
        ({"data__completion": "!"}, "completion must contain {answer}"),
        ({"data": None}, "spec.data: Required value"),
        ({"recipes": ["fp9"]}, "spec.recipes[0]"),
        ({"recipes": []}, "spec.recipes"),
        ({"recipes": [{**OWN_RECIPE, "weight_storage": "fp9"}]}, 'Unsupported value: "fp9"'),
        ({"recipes": [{"name": "own"}]}, "spec.recipes[0].compute: Required value"),
        ({"seeds": [1, 1]}, "each may appear once"),
        ({"seeds": [-1]}, "spec.seeds[0]"),
        ({"seeds": list(range(200))}, "more than 1000 runs"),
        ({"seeds": list(range(201))}, "spec.seeds: Too many"),
        ({"serving__extra_args": ["--trust_remote-code"]}, "remove --trust-remote-code"),
        ({"evaluation__task": "Ro GSM8K"}, "spec.evaluation.task"),
        ({"engine": "fast"}, "spec.engine"),
        ({"trainers": [TRAINER | {"image": None}]}, "image is required on Kubernetes"),
        ({"trainers": [TRAINER | {"image": "Other:1"}]}, "spec.trainers[0].image"),
        ({"trainers": [TRAINER | {"command": ["sh", "./train.sh"]}]}, "put the file into the image"),
        ({"trainers": [TRAINER, TRAINER]}, "each name may appear once"),
        ({"trainers": [TRAINER], "seeds": list(range(126))}, "more than 1000 runs"),
        ({"scheduling": {"slots": 0}}, "spec.scheduling.slots"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused_when_it_is_applied(
    sweeps: Sweeps, changes: dict[str, Any], words: str
) -> None:
    made = manifest(**changes)
    with pytest.raises(PermanentError) as caught:
        sweeps.create(made)
    assert words in str(caught.value)
    with pytest.raises(ConfigError):  # the models say the same
        parse_resource(made)


@pytest.mark.parametrize("name", ["a" * 41, "with.dots"])
def test_a_name_that_other_names_cannot_be_made_from_is_refused(sweeps: Sweeps, name: str) -> None:
    with pytest.raises(PermanentError, match=r"metadata\.name must have at most 40"):
        sweeps.create(manifest() | {"metadata": {"name": name}})


def test_a_name_of_40_characters_is_accepted(sweeps: Sweeps) -> None:
    sweeps.create(manifest() | {"metadata": {"name": "a" * 40}})


CHANGES: list[Manifest] = [
    {"description": "other"},
    {"model": {"builtin": "smollm2-135m"}},
    {"data": {"test_size": 7}},
    {"training": {"learning_rate": 0.1}},
    {"training": {"lora": {"alpha": 8}}},
    {"recipes": ["bf16"]},
    {"seeds": [1]},
    {"engine": "emulated"},
    {"serving": {"max_loras": 1}},
    {"evaluation": {"limit": 5}},
    {"placement": "phased"},
    {"max_attempts": 1},
    {"train_timeout_s": 5},
]


def test_the_experiment_cannot_be_changed(sweeps: Sweeps) -> None:
    sweeps.create(manifest())
    assert {name for change in CHANGES for name in change} == set(manifest()["spec"])
    for change in CHANGES:
        (name,) = change
        for spec in (change, {**change, "suspend": True}):
            with pytest.raises(PermanentError, match=f"{name} cannot be changed"):
                sweeps.change("embedded", spec)


def test_the_order_of_recipes_and_seeds_belongs_to_the_experiment(sweeps: Sweeps) -> None:
    sweeps.create(manifest(seeds=[0, 1]))
    with pytest.raises(PermanentError, match="seeds cannot be changed"):
        sweeps.change("embedded", {"seeds": [1, 0]})
    with pytest.raises(PermanentError, match="recipes cannot be changed"):
        sweeps.change("embedded", {"recipes": manifest()["spec"]["recipes"][::-1]})


def test_suspension_and_scheduling_can_be_changed(sweeps: Sweeps) -> None:
    sweeps.create(manifest())
    sweeps.change("embedded", {"suspend": True, "scheduling": {"queue_name": "gpus", "node_selector": {"zone": "a"}}})
    sweeps.change("embedded", {"scheduling": {"queue_name": None, "slots": 2}})
    stored = sweeps.change("embedded", {"suspend": False})
    assert stored["spec"]["scheduling"] == {"node_selector": {"zone": "a"}, "slots": 2}
    assert stored["metadata"]["generation"] == 4


def test_the_largest_sweep_allowed_is_accepted(sweeps: Sweeps) -> None:
    recipes = [{**OWN_RECIPE, "name": f"own-{number}"} for number in range(64)]
    sweeps.create(manifest(recipes=recipes, seeds=list(range(15))))
    with pytest.raises(PermanentError, match="recipes cannot be changed"):
        sweeps.change("embedded", {"recipes": [*recipes[:-1], "bf16"]})


def test_the_status_is_a_subresource_with_its_columns(sweeps: Sweeps, api: Api) -> None:
    sweeps.create(manifest() | {"status": {"phase": "Complete"}})
    assert "status" not in sweeps.get("embedded")
    runs = [{"name": "bf16-s0", "state": "Training", "loss": 1, "step": 3}]
    status = {"phase": "Running", "progress": "0/8", "failed": 0, "observedGeneration": 1, "runs": runs}
    assert api.patch(f"{sweeps.path}/embedded/status", {"status": status})
    assert sweeps.get("embedded")["status"] == status
    with pytest.raises(PermanentError, match=r"status\.phase"):
        api.patch(f"{sweeps.path}/embedded/status", {"status": {"phase": "Odd"}})
    with pytest.raises(PermanentError, match="Duplicate value"):
        api.patch(f"{sweeps.path}/embedded/status", {"status": {"runs": runs * 2}})


@pytest.mark.parametrize("name", ["sweep", "sweeps", "rsw", "recipesweep", "recipesweeps.bench.surogate.ai"])
def test_kubectl_knows_it_by_every_name_that_the_documentation_uses(sweeps: Sweeps, namespace: str, name: str) -> None:
    sweeps.create(manifest())
    found = kubectl("get", f"{name}/embedded", "--namespace", namespace, "--output", "name")
    assert found.strip() == "recipesweep.bench.surogate.ai/embedded"
