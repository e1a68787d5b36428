"""Ways of serving: which a sweep requests, and what is scored on which."""

from typing import Any

import pytest
from sweeps import small_sweep

from surogate_bench.errors import ConfigError
from surogate_bench.layout import SweepLayout
from surogate_bench.recipes import recipe_by_name
from surogate_bench.results import EvalResult, Metric, PrepareResult, SplitInfo
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.identity import WayOfServing, evaluation_identity
from surogate_bench.stages.requests import EvaluateRequest, ServeRequest

PREPARED = PrepareResult(
    data={"train": SplitInfo(records=8, sha256="a"), "test": SplitInfo(records=8, sha256="b")},
    model_source="built in: tiny-qwen3-en",
    model_in_store=False,
)
ADAPTER = "c" * 64


def sweep(*under: str, **changes: Any) -> RecipeSweep:
    serving = {"serving": {"under": list(under)}} if under else {}
    return small_sweep(**{"recipes": ["bf16", "fp8", "qbnb"], **serving, **changes})


def test_without_it_everything_is_scored_on_the_model_as_published_only() -> None:
    assert sweep().served_under == sweep().scored_under("fp8") == sweep().scored_under(None) == (None,)


@pytest.mark.parametrize(
    ("under", "served", "bf16", "fp8", "qbnb"),
    [
        (["bf16"], (None,), (None,), (None,), (None,)),
        (["own"], (None, "fp8", "qbnb"), (None,), (None, "fp8"), (None, "qbnb")),
        (["qbnb"], (None, "qbnb"), (None, "qbnb"), (None, "qbnb"), (None, "qbnb")),
        (["own", "qbnb"], (None, "fp8", "qbnb"), (None, "qbnb"), (None, "fp8", "qbnb"), (None, "qbnb")),
        (["all"], (None, "fp8", "qbnb"), (None, "fp8", "qbnb"), (None, "fp8", "qbnb"), (None, "fp8", "qbnb")),
    ],
)
def test_what_is_scored_on_which_way_of_serving(
    under: list[str], served: tuple[Any, ...], bf16: tuple[Any, ...], fp8: tuple[Any, ...], qbnb: tuple[Any, ...]
) -> None:
    made = sweep(*under)
    assert made.served_under == made.scored_under(None) == served
    assert (made.scored_under("bf16"), made.scored_under("fp8"), made.scored_under("qbnb")) == (bf16, fp8, qbnb)


def test_a_recipe_that_quantizes_nothing_is_the_model_as_published() -> None:
    plain = {"name": "plain", "title": "Plain", "weight_storage": "bf16", "compute": "bf16"}
    assert sweep("all", "plain", recipes=[plain, "fp8"]).served_under == (None, "fp8")


def test_neither_order_nor_repetition_nor_what_is_implied_changes_the_hash() -> None:
    assert sweep("bf16").spec_hash == sweep().spec_hash
    assert sweep("own").spec_hash == sweep("own", "bf16", "own").spec_hash != sweep().spec_hash
    assert sweep("qbnb", "fp8").spec_hash == sweep("fp8", "bf16", "qbnb").spec_hash
    assert sweep("all").spec_hash == sweep("fp8", "all", "own").spec_hash != sweep("fp8", "qbnb").spec_hash


@pytest.mark.parametrize(
    ("under", "said"),
    [
        (["fp9"], r"serving.under: there is no such recipe in this sweep \(got 'fp9'\). Did you mean fp8\?"),
        (["owned"], "Did you mean own"),
        (["fp4-published"], "Use bf16, own, all, fp8, qbnb"),
        ([], "serving.under: .*at least 1 item"),
    ],
)
def test_an_unknown_way_of_serving_is_refused_with_its_likely_spelling(under: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small_sweep(recipes=["bf16", "fp8", "qbnb"], serving={"under": under})


@pytest.mark.parametrize(("name", "compute"), [("own", "fp8-hybrid"), ("all", "bf16"), ("bf16", "fp8-hybrid")])
def test_a_recipe_named_like_a_keyword_is_refused_where_that_is_ambiguous(name: str, compute: str) -> None:
    recipe = {"name": name, "title": "X", "weight_storage": "bf16", "compute": compute}
    assert small_sweep(recipes=[recipe]).served_under == (None,)
    with pytest.raises(ConfigError, match="Rename the recipe"):
        small_sweep(recipes=[recipe, "fp4"], serving={"under": ["fp4", name]})


def test_evaluations_of_a_run_lie_beside_each_other_and_the_first_where_it_always_did() -> None:
    layout = SweepLayout("small", "0")
    assert layout.eval("fp8-s0") == "sweeps/small/0/runs/fp8-s0/eval"
    assert layout.eval("fp8-s0", "qbnb") == "sweeps/small/0/runs/fp8-s0/eval-qbnb"


def test_requests_and_results_without_it_are_written_as_before_there_was_any() -> None:
    half = Metric(accuracy=0.5, stderr=0.1)
    values: dict[str, Any] = {
        "task": "t", "model": "m", "samples": 2, "strict": half, "flexible": half, "empty_answers": 0,
        "seconds": 1.0, "parallel_evaluations": 1,
    }  # fmt: skip
    assert "served_under" not in EvalResult(**values).model_dump(mode="json")
    assert EvalResult(**values, served_under="fp8").model_dump(mode="json")["served_under"] == "fp8"
    common: dict[str, Any] = {"sweep": sweep(), "store": "/store"}
    for request in (
        EvaluateRequest(**common, run="base", server_url=""),
        ServeRequest(**common, port=1, vllm_port=2),
    ):
        assert "under" not in request.model_dump(exclude_none=True)


def identity(made: RecipeSweep, adapter: str | None = ADAPTER, **way: Any) -> str | None:
    """Identify an evaluation on a way of serving."""
    return evaluation_identity(made, PREPARED, adapter, WayOfServing(**way))


def test_an_evaluation_is_identified_by_the_recipe_that_it_is_served_under() -> None:
    fp8, qbnb = recipe_by_name("fp8"), recipe_by_name("qbnb")
    identities = {identity(sweep("all"), under=under) for under in (None, fp8, qbnb)}
    assert len(identities) == 3
    assert identity(sweep("all")) == identity(sweep())
    assert identity(sweep("all"), None, under=fp8) == identity(sweep("fp8"), None, under=fp8)


def test_training_data_count_where_scales_of_inputs_may_be_calibrated_on_them() -> None:
    other = PREPARED.model_copy(update={"data": PREPARED.data | {"train": SplitInfo(records=8, sha256="z")}})
    for name, depends in (("fp8", True), ("qbnb", False)):
        recipe = recipe_by_name(name)
        way = WayOfServing(under=recipe)
        one, two = (evaluation_identity(sweep("all"), each, None, way) for each in (PREPARED, other))
        assert (one != two) is depends


def test_the_scales_that_training_kept_count_where_inputs_are_scaled_with_them() -> None:
    for name, depends in (("fp8", True), ("qfp4", True), ("qbnb", False)):
        recipe = recipe_by_name(name)
        kept, none = (identity(sweep("all"), under=recipe, input_scales_sha256=scales) for scales in ("s", None))
        assert (kept != none) is depends
    assert identity(sweep(), input_scales_sha256="s") == identity(sweep())


def test_the_engine_counts_where_products_are_low_precision() -> None:
    emulated, auto = sweep("all", engine="emulated"), sweep("all")
    fp8 = recipe_by_name("fp8")
    assert identity(emulated, None, under=fp8) != identity(auto, None, under=fp8)
    assert identity(emulated, None) == identity(auto, None)


def merged(*under: str) -> RecipeSweep:
    return small_sweep(recipes=["bf16", "fp8", "qbnb"], serving={"under": list(under) or ["bf16"], "merged": True})


def test_adapters_are_merged_on_the_ways_of_serving_on_which_they_are_scored_and_the_base_model_never() -> None:
    made = merged("own")
    assert (made.scored_merged("bf16"), made.scored_merged("fp8")) == ((None,), (None, "fp8"))
    assert made.scored_merged("") == (None,)  # a foreign adapter
    assert made.scored_merged(None) == sweep("own").scored_merged("fp8") == ()


def test_only_a_sweep_that_merges_has_another_hash() -> None:
    assert merged("own").spec_hash != sweep("own").spec_hash
    plain = {"recipes": ["bf16", "fp8", "qbnb"], "serving": {"merged": False}}
    assert small_sweep(**plain).spec_hash == sweep().spec_hash


def test_merged_evaluations_have_places_that_no_recipes_name_leads_to() -> None:
    layout = SweepLayout("small", "0")
    places = {layout.eval("r", under, merged=is_merged) for under in (None, "merged", "fp8") for is_merged in (0, 1)}
    assert len(places) == 6
    assert layout.eval("r", merged=True) == "sweeps/small/0/runs/r/merged"
    assert layout.eval("r", "fp8", merged=True) == "sweeps/small/0/runs/r/merged-fp8"


def test_requests_that_merge_nothing_are_written_as_before() -> None:
    common: dict[str, Any] = {"sweep": sweep(), "store": "/store"}
    for request in (EvaluateRequest(**common, run="r", server_url=""), ServeRequest(**common, port=1, vllm_port=2)):
        assert "merged" not in request.model_dump(exclude_none=True)
    assert EvaluateRequest(**common, run="r", server_url="", merged=True).model_dump()["merged"] is True


def test_a_merged_evaluation_is_another_one_than_of_the_same_adapter_unmerged() -> None:
    fp8 = recipe_by_name("fp8")
    identities = {
        identity(sweep("all"), under=under, merged=is_merged) for under in (None, fp8) for is_merged in (False, True)
    }
    assert len(identities) == 4
    assert identity(merged("own")) == identity(sweep())
