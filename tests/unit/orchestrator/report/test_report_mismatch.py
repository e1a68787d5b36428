"""What the report says where adapters were trained on other weights or with other products than they are served on."""

import itertools
import re
from pathlib import Path

import pytest
import yaml
from worlds.report import MakeWorld, right, summarized

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench_orchestrator.report import Summary
from surogate_bench_orchestrator.report.text.mismatch import Quantized, mismatch, mismatch_details


@pytest.mark.parametrize(
    ("storage", "compute"),
    [
        (storage, compute)
        for storage, compute in itertools.product(WeightStorage, ComputePrecision)
        if storage is not WeightStorage.NF4 or compute is ComputePrecision.BF16
    ],
)
def test_the_mismatch_names_storage_and_products(storage: WeightStorage, compute: ComputePrecision) -> None:
    recipe = Recipe(name="mine", title="Mine", weight_storage=storage, compute=compute)
    rows = [Quantized(title=recipe.title, recipe=recipe)] if recipe.quantizes else []
    short, long = mismatch(rows), mismatch_details(rows)
    assert bool(short) == bool(long) == recipe.quantizes
    if recipe.quantizes:
        named = short.partition("trained with quantized ")[2].partition(" (Mine)")[0]
        assert ("weights" in named) == (storage is not WeightStorage.BF16)
        assert ("products" in named) == (compute is not ComputePrecision.BF16)
        assert re.search(r"Mine on \S+ weights with \S+ products", long)


def test_recipes_with_quantized_products_on_bf16_weights_are_named_as_mismatched(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_everything()
    summary = summarized(world)
    assert (
        "quantized products (FP8 and FP4), quantized weights (QBnB and QFP8 + bf16) or both (QFP8 + fp8-hybrid and "
        "QFP4) include that mismatch."
    ) in summary.headline
    assert any("FP4 on bf16 weights with NVFP4 products" in note for note in summary.notes)


def published_mismatch(summary: Summary) -> str:
    _, found, rest = summary.headline.partition(
        "As published, adapters were served on bf16 weights with bf16 products; "
    )
    assert found, summary.headline
    return rest


def test_the_headline_of_the_default_sweep_names_weights_and_products(report_world: MakeWorld) -> None:
    document = yaml.safe_load((Path(__file__).parents[4] / "configs/sweeps/embedded.yaml").read_text(encoding="utf-8"))
    world = report_world(**document)
    world.publish_answers({f"{recipe.name}-s0": right(411) for recipe in world.sweep.recipes})
    for count, recipe in enumerate(world.sweep.recipes[1:]):
        world.publish_eval(f"{recipe.name}-s0", right(400 + 5 * count), under=recipe.name)
    assert published_mismatch(summarized(world)) == (
        "served as trained instead, FP8 80.0 % and FP4 81.0 % (quantized products), QBnB 82.0 % and QFP8 + bf16 84.0 % "
        "(quantized weights) and QFP8 + fp8-hybrid 83.0 % and QFP4 85.0 % (both)."
    )


def test_rows_that_were_not_scored_as_trained_keep_the_mismatch_beside_those_that_were(
    report_world: MakeWorld,
) -> None:
    adapter = {"name": "theirs", "hub": "lab/adapter", "trained_under": "qbnb"}
    world = report_world(recipes=["bf16", "fp8", "qbnb", "qfp4"], serving={"under": ["own"]}, adapters=[adapter])
    world.publish_answers({f"{recipe}-s0": right(411) for recipe in ("bf16", "fp8", "qbnb")})
    world.publish_eval("fp8-s0", right(400), under="fp8")
    world.publish_eval("theirs", right(390))
    summary = summarized(world)
    assert published_mismatch(summary) == (
        "served as trained instead, FP8 80.0 % (quantized products); the accuracies of those trained with quantized "
        "weights (QBnB and theirs) and not scored as trained include that mismatch."
    )
    assert any(
        "separates recipe and mismatch for FP8, not for QBnB, QFP4 and theirs." in note for note in summary.notes
    )


def test_adapters_of_other_trainers_include_the_mismatch_as_far_as_it_is_known(report_world: MakeWorld) -> None:
    trainers = [
        {"name": "other", "command": ["other", "train"], "trained_under": "qfp4"},
        {"name": "unknown", "command": ["unknown", "train"]},
    ]
    adapters = [{"name": "theirs", "hub": "lab/adapter", "trained_under": "qbnb"}]
    world = report_world(recipes=["bf16"], trainers=trainers, adapters=adapters)
    world.publish_answers({"bf16-s0": right(411)})
    for name in ("other", "unknown"):
        world.publish_foreign_train(name)
        world.publish_eval(f"{name}-s0", right(400))
    world.publish_eval("theirs", right(390))
    summary = summarized(world)
    assert summary.headline.endswith(
        "All adapters were served on bf16 weights with bf16 products; the accuracies of those trained with quantized "
        "weights (theirs) or quantized weights and products (other) include that mismatch."
    )
    note = next(note for note in summary.notes if "the effects of recipe and mismatch are combined" in note)
    assert "other on NVFP4 weights with" in note
    assert "theirs on NF4 weights with bf16 products" in note
    assert any(
        note.startswith("The sweep does not state which recipe unknown was trained under") for note in summary.notes
    )
