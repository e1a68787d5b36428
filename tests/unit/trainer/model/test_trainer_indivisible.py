"""Models with widths that blocks do not divide: found by preparation, and trained where the recipe says how."""

from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny_models import TinyModel
from sweeps import MakeSweep
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from surogate_bench.errors import ConfigError
from surogate_bench.results import TrainResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest, TrainRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.main import handle
from surogate_bench_trainer.prepare.base_model.checkpoint_tensors import check_tensors
from surogate_bench_trainer.prepare.base_model.config_checks import check_config
from surogate_bench_trainer.prepare.base_model.facts import CheckpointFacts, ConfigFacts

pytestmark = pytest.mark.usefixtures("restored_threads")

OPT = {"num_key_value_heads": None, "ffn_dim": 100, "word_embed_proj_dim": 64, "dropout": 0.0, "init_std": 0.1}


def own(make_sweep: MakeSweep, recipe: dict[str, Any], **changes: Any) -> RecipeSweep:
    """A sweep with one recipe, NVFP4 storage unless it says otherwise."""
    stored = {"name": "own", "title": "O", "weight_storage": "nvfp4", "compute": "bf16"}
    return make_sweep(recipes=[stored | recipe], **changes)


def facts_of(sweep: RecipeSweep, model: PreTrainedModel) -> CheckpointFacts:
    """Facts of a complete checkpoint."""
    whole = {"missing_keys": (), "unexpected_keys": (), "mismatched_keys": ()}
    types = dict.fromkeys(model.state_dict(), "BF16")
    return CheckpointFacts(sweep=sweep, config=model.config, model=model, loading=whole, types=types)


def without_data(**settings: Any) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(TinyModel(kind="llama", settings=settings).config())
    return model


@pytest.mark.parametrize("on_indivisible", ["refuse", "keep", "pad"])
def test_layers_that_blocks_do_not_divide_are_refused_before_training_or_kept_or_padded(
    make_sweep: MakeSweep, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, on_indivisible: str
) -> None:
    TinyModel(kind="opt", settings=OPT).save(tmp_path / "model", tokenizer)
    sweep = own(
        make_sweep,
        {"on_indivisible": on_indivisible},
        model={"path": str(tmp_path / "model")},
        training={"max_steps": 2, "warmup_steps": 0, "lora": {"target_modules": "all-linear"}},
    )
    prepare = PrepareRequest(sweep=sweep, store=str(tmp_path / "store"))
    (tmp_path / "prepare").mkdir()
    if on_indivisible == "refuse":
        problem = (
            r"needs dimensions divisible by 16, but 2 of 12 layers have others; model\.decoder\.layers\.0\.fc2 has 100 "
            r".*on_indivisible: pad, which pads blocks with zeros, or keep, which leaves such layers in bf16"
        )
        with pytest.raises(ConfigError, match=problem):
            handle(prepare, tmp_path / "prepare")
        return
    handle(prepare, tmp_path / "prepare")
    request = TrainRequest(sweep=sweep, store=prepare.store, recipe="own", seed=0, threads=1)
    (tmp_path / "train").mkdir()
    handle(request, tmp_path / "train")
    manifest = read_manifest(open_store(request.store), request.layout.train("own-s0"))
    assert manifest is not None
    result = manifest.require_result(TrainResult)
    assert result.kept_layers == (("fc2",) if on_indivisible == "keep" else ())
    assert result.padded_layers == (("fc2",) if on_indivisible == "pad" else ())
    assert (result.covered_share == 1.0) == (on_indivisible == "pad")


@pytest.mark.parametrize(
    ("recipe", "unfit"),
    [({}, "1 of 14 layers have others; model.layers.0.mlp.down_proj"), ({"skip_last_layers": 1}, "1 of 7"),
     ({"skip_first_layers": 1}, None)],
)  # fmt: skip
def test_only_layers_that_a_recipe_does_not_skip_have_to_fit_its_blocks(
    make_sweep: MakeSweep, recipe: dict[str, Any], unfit: str | None
) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(TinyModel(kind="llama").config())
        model.model.layers[0].mlp.down_proj = nn.Linear(100, 64)
    facts = facts_of(own(make_sweep, recipe), model)
    if unfit is None:
        check_tensors(facts)
        return
    with pytest.raises(ConfigError, match=f"recipe own: model: NVFP4 needs dimensions divisible by 16, but {unfit}"):
        check_tensors(facts)


def test_a_recipe_that_keeps_only_some_of_what_vllm_multiplies_as_one_is_not_served_under(
    make_sweep: MakeSweep,
) -> None:
    """The only key head has 24 outputs, which the blocks of products do not divide; the queries' 96 they do."""
    model, narrow = without_data(num_attention_heads=4, head_dim=24), without_data(intermediate_size=100)
    recipe = {"name": "mine", "compute": "nvfp4", "on_indivisible": "keep"}
    check_tensors(facts_of(own(make_sweep, recipe), model))
    served = {"serving": {"under": ["own"]}}
    with pytest.raises(
        ConfigError,
        match=r"serving\.under: vLLM multiplies q_proj, k_proj, v_proj as one matrix, and recipe mine keeps only "
        r"k_proj, v_proj in bf16 .*on_indivisible: pad",
    ):
        check_tensors(facts_of(own(make_sweep, recipe, **served), model))
    check_tensors(facts_of(own(make_sweep, recipe | {"on_indivisible": "pad"}, **served), model))
    check_tensors(facts_of(own(make_sweep, recipe, **served), narrow))


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        ("bf16", None),
        ("nvfp4", "own: model: NVFP4 needs dimensions divisible by 16, .* num_key_value_heads x head_dim is 8"),
    ],
)
def test_widths_that_are_outputs_only_have_to_fit_the_blocks_of_products(
    make_sweep: MakeSweep, compute: str, message: str | None
) -> None:
    config = TinyModel(kind="llama", settings={"num_attention_heads": 8, "head_dim": 8}).config()
    facts = ConfigFacts(sweep=own(make_sweep, {"compute": compute}), config=config, served_on_cpu=False)
    if message is None:
        check_config(facts)
        return
    with pytest.raises(ConfigError, match=message):
        check_config(facts)
