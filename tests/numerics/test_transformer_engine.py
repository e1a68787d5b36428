"""The engine ``transformer-engine``: what it asks of the library, and what it makes of the answers.

The library needs a GPU, and no GPU has run this engine yet. A stand-in has the library's semantics on a CPU. Where the
library is installed, or TRANSFORMER_ENGINE_SOURCE names the folder ``transformer_engine`` of its unpacked wheel, names
and formulas are compared with its own source.
"""

import ast
import inspect
import os
import sys
from dataclasses import fields, replace
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_ins import transformer_engine as stand_in
from torch import Tensor, nn

from surogate_bench.errors import ConfigError, UnsupportedRecipeError
from surogate_bench.recipes import WeightStorage, recipe_by_name
from surogate_bench_quantization.engines import EngineSession, select_engine
from surogate_bench_quantization.engines.emulated import EmulatedEngine
from surogate_bench_quantization.engines.transformer_engine import TransformerEngine, library_recipe
from surogate_bench_quantization.engines.transformer_engine_scaling import DelayedState
from surogate_bench_quantization.formats.delayed_scaling import DelayedScaling

CPU = torch.device("cpu")
FP8 = replace(recipe_by_name("fp8"), fp8_amax_history_length=4)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch)


@pytest.fixture
def source() -> Path:
    """Folder of the library's Python files: of an unpacked wheel that a variable names, or as installed."""
    if named := os.environ.get("TRANSFORMER_ENGINE_SOURCE"):
        return Path(named)
    found = find_spec("transformer_engine")
    if found is None or not found.submodule_search_locations:
        pytest.skip("Transformer Engine is not installed, and TRANSFORMER_ENGINE_SOURCE names no copy of its source")
    return Path(next(iter(found.submodule_search_locations)))


def random(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def start(engine: Any, recipe: Any = FP8) -> tuple[EngineSession, nn.Linear]:
    session = engine.start(recipe, layers=1, device=CPU, seed=0)
    linear = nn.Linear(64, 32, bias=False, device="meta")
    linear.weight = nn.Parameter(random(32, 64, 0) * 0.02, requires_grad=False)
    return session, session.replace(linear).train()


def both_products(layer: nn.Linear, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    inputs = inputs.clone().requires_grad_()
    outputs = layer(inputs)
    (input_gradients,) = torch.autograd.grad(outputs, inputs, gradients)
    return outputs.detach(), input_gradients


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("storage", [WeightStorage.BF16, WeightStorage.FP8_128X128, WeightStorage.NVFP4])
def test_forward_products_and_input_scales_are_those_of_the_recipe_in_every_step(storage: WeightStorage) -> None:
    recipe = replace(FP8, weight_storage=storage)
    session, layer = start(TransformerEngine(), recipe)
    reference, emulated = start(EmulatedEngine(), recipe)
    for step in range(7):  # more steps than the history has
        for micro_batch in range(2):
            inputs = random(48, 64, 10 * step + micro_batch) * (1 + step % 3)
            torch.testing.assert_close(layer(inputs), emulated(inputs), rtol=2.0**-7, atol=1e-4)
        session.end_of_optimizer_step()
        reference.end_of_optimizer_step()
        (found,), (expected,) = session.input_scales(), reference.input_scales()
        assert found == expected


@pytest.mark.usefixtures("library")
def test_gradients_are_scaled_by_their_history_which_the_recipe_does_not_do() -> None:
    session, layer = start(TransformerEngine())
    _, emulated = start(EmulatedEngine())
    inputs, tiny = random(16, 64, 1), random(16, 32, 2) * 1e-7
    assert not both_products(layer, inputs, tiny)[1].any()  # the scale is 1 in the first step: E5M2 ends at 2**-16
    session.end_of_optimizer_step()
    found, expected = both_products(layer, inputs, tiny)[1], both_products(emulated, inputs, tiny)[1]
    torch.testing.assert_close(found, expected, rtol=2.0**-6, atol=1e-10)


@pytest.mark.usefixtures("library")
def test_the_library_is_asked_for_the_recipe_once_a_layer_and_never_moves_scales_itself() -> None:
    _, layer = start(TransformerEngine())
    layer(random(16, 64, 1))
    expected = stand_in.DelayedScaling(margin=0, amax_history_len=4, amax_compute_algo="max", reduce_amax=False)
    assert [{"enabled": True, "recipe": expected, "_graph": True}] * 2 == stand_in.REGIONS
    nvfp4 = library_recipe(recipe_by_name("fp4"), sys.modules["transformer_engine.common.recipe"])
    assert nvfp4 == stand_in.NVFP4BlockScaling(disable_rht=True)


@pytest.mark.usefixtures("library")
def test_products_in_bf16_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="bf16"):
        TransformerEngine().start(recipe_by_name("bf16"), layers=1, device=CPU, seed=0)


@pytest.mark.usefixtures("library")
def test_the_weight_is_quantized_once_and_no_bf16_copy_survives() -> None:
    _, layer = start(TransformerEngine())
    inner = layer.products.linear
    assert inner.weight.shape == (32, 64)
    assert inner.weight.untyped_storage().nbytes() == 2
    assert not inner.weight.requires_grad
    assert layer.products.operand_nbytes == 2 * 32 * 64 + 4


@pytest.mark.usefixtures("library")
def test_rows_are_padded_and_leading_dimensions_kept() -> None:
    _, layer = start(TransformerEngine())
    inputs = random(6, 64, 1)
    outputs = layer(inputs.view(2, 3, 64))
    assert outputs.shape == (2, 3, 32)
    assert torch.equal(outputs.view(6, 32), layer(torch.cat((inputs, inputs)))[:6])


@pytest.mark.usefixtures("library")
def test_validation_moves_no_scale() -> None:
    session, layer = start(TransformerEngine())
    layer(random(16, 64, 1))
    layer.eval()(random(16, 64, 2) * 100)
    session.end_of_optimizer_step()
    (scale,) = session.input_scales()
    assert scale == 448 / random(16, 64, 1).abs().max().float()


@pytest.mark.usefixtures("library")
def test_a_resumed_session_continues_bit_for_bit() -> None:
    def step(session: EngineSession, layer: nn.Linear, number: int) -> tuple[Tensor, Tensor]:
        found = both_products(layer, random(16, 64, number) * (1 + number), random(16, 32, number))
        session.end_of_optimizer_step()
        return found

    session, layer = start(TransformerEngine())
    step(session, layer, 0)
    step(session, layer, 1)
    resumed, other = start(TransformerEngine())
    resumed.load_state_dict(session.state_dict())
    for number in range(2, 5):
        found, expected = step(resumed, other, number), step(session, layer, number)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    with pytest.raises(KeyError, match="quantization state"):
        resumed.load_state_dict({})


@pytest.mark.usefixtures("library")
def test_processes_that_share_a_step_and_combine_its_maxima_have_the_scales_of_one_process() -> None:
    alone, layer = start(TransformerEngine())
    shared = [start(TransformerEngine()) for _ in range(2)]
    for number, (_, part) in enumerate(shared):
        micro_batch = (random(16, 64, number) * (1 + number), random(16, 32, number))
        both_products(layer, *micro_batch)
        both_products(part, *micro_batch)
    for one, other in zip(*(session.maxima for session, _ in shared), strict=True):
        one.copy_(torch.maximum(one, other))
        other.copy_(one)
    for session in (alone, *(each for each, _ in shared)):
        session.end_of_optimizer_step()
    expected = alone.state_dict()
    for session, _ in shared:
        found = session.state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_library_that_is_missing_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformer_engine", None)
    monkeypatch.delitem(sys.modules, "transformer_engine.pytorch", raising=False)
    with pytest.raises(ConfigError, match=r"engine: Transformer Engine cannot be imported: .*docs/hardware.md"):
        TransformerEngine().start(FP8, layers=1, device=CPU, seed=0)


def test_a_version_of_the_library_that_has_no_cached_weight_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch)
    monkeypatch.delattr(stand_in.Linear, "get_weight_workspace")
    with pytest.raises(ConfigError, match=r"engine: this version of Transformer Engine .*2\.12"):
        TransformerEngine().start(FP8, layers=1, device=CPU, seed=0)


@pytest.mark.parametrize(("recipe", "capability"), [("fp8", (8, 0)), ("fp4", (9, 0))])
def test_hardware_that_is_too_old_is_refused_before_the_library_is_imported(
    recipe: str, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GPU")
    with pytest.raises(UnsupportedRecipeError, match=r"GPU, which has .*transformer-engine: its .* or later"):
        select_engine(recipe_by_name(recipe), torch.device("cuda"), "transformer-engine")
    assert "transformer_engine" not in sys.modules


@pytest.mark.usefixtures("library")
def test_widths_that_the_library_cannot_take_are_refused() -> None:
    session = TransformerEngine().start(FP8, layers=1, device=CPU, seed=0)
    with pytest.raises(ConfigError, match=r"24 inputs and 64 outputs.*engine: emulated"):
        session.replace(nn.Linear(24, 64, bias=False, dtype=torch.bfloat16))


@pytest.mark.parametrize("margin", [0, 3])
def test_scales_move_as_the_recipes_do(margin: int) -> None:
    """Same history length, algorithm and margin: both keep the largest of the last L steps."""
    ours = DelayedScaling(slots=2, history_length=3, margin=margin, device=CPU)
    theirs = DelayedState(torch.zeros(3, 2), torch.ones(2))
    for amaxes in ([8.0, 0.0], [2.0, 1e-42], [1.0, 5.0], [3.0, float("inf")], [0.5, 1.0], [0.25, 7.0], [0.1, 0.2]):
        for slot, largest in enumerate(amaxes):
            ours.record(slot, torch.tensor(largest))
            theirs.history[0, slot] = largest
        ours.update()
        theirs.update(448.0, margin=margin)
        assert theirs.scale.tolist() == [ours.scale(0), ours.scale(1)]


def test_scales_move_as_in_the_source_of_the_library(source: Path) -> None:
    names = ["_update_amax_history", "_default_get_amax_and_update_history", "_default_sf_compute"]
    namespace: dict[str, Any] = {"torch": torch, "Tuple": tuple}
    tree = ast.parse((source / "pytorch" / "quantization.py").read_text("utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for name in names:
        functions[name].decorator_list = []
        exec(compile(ast.Module([functions[name]], []), name, "exec"), namespace)  # noqa: S102 - an installed package
    theirs, ours = torch.zeros(3, 2), DelayedState(torch.zeros(3, 2), torch.ones(2))
    scale = torch.ones(2)
    for amaxes in ([8.0, 0.0], [2.0, 1e-42], [1.0, 5.0], [3.0, float("inf")], [0.5, 1.0], [0.25, 7.0], [0.1, 0.2]):
        theirs[0] = torch.tensor(amaxes)
        ours.history[0] = theirs[0]
        theirs, largest = namespace[names[1]](theirs, "max")
        scale = namespace[names[2]](largest, scale, 448.0, 2)
        ours.update(448.0, margin=2)
        torch.testing.assert_close(ours.scale, scale, rtol=2.0**-22, atol=0)  # Python code multiplies by a reciprocal
        assert torch.equal(ours.history, theirs)


def test_the_recipes_are_accepted_by_the_classes_of_the_library(source: Path) -> None:
    spec = spec_from_file_location("real_recipes", source / "common" / "recipe" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    real = module_from_spec(spec)
    sys.modules["real_recipes"] = real
    spec.loader.exec_module(real)
    delayed = library_recipe(FP8, real)
    assert (delayed.margin, delayed.amax_history_len, delayed.amax_compute_algo) == (0, 4, "max")
    assert (delayed.fp8_format.value.max_fwd, delayed.fp8_format.value.max_bwd) == (448, 57344)
    assert delayed.delayed()
    nvfp4 = library_recipe(recipe_by_name("fp4"), real)
    assert nvfp4.fp4_quant_fwd_weight.fp4_2d_quantization
    assert nvfp4.fp4_quant_bwd_grad.stochastic_rounding
    assert not nvfp4.fp4_quant_bwd_grad.random_hadamard_transform
    for stood_in in (stand_in.DelayedScaling, stand_in.NVFP4BlockScaling):
        names = {each.name for each in fields(getattr(real, stood_in.__name__))}
        assert {each.name for each in fields(stood_in)} <= names


def test_what_the_stand_in_offers_has_the_parameters_of_the_library(source: Path) -> None:
    def parameters(file: str, qualified: str) -> set[str]:
        tree: ast.AST = ast.parse((source / "pytorch" / file).read_text("utf-8"))
        for name in qualified.split("."):
            tree = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name)
        assert isinstance(tree, ast.FunctionDef)
        return {argument.arg for argument in (*tree.args.args, *tree.args.kwonlyargs)}

    for file, name, member in [
        ("module/linear.py", "Linear.__init__", stand_in.Linear.__init__),
        ("module/linear.py", "Linear.forward", stand_in.Linear.forward),
        ("module/linear.py", "Linear._get_weight_quantizers", stand_in.Linear._get_weight_quantizers),
        ("module/base.py", "TransformerEngineBaseModule.get_weight_workspace", stand_in.Linear.get_weight_workspace),
        ("module/base.py", "TransformerEngineBaseModule.init_fp8_metadata", stand_in.Linear.init_fp8_metadata),
        ("quantization.py", "autocast", inspect.unwrap(stand_in.autocast)),
    ]:
        assert set(inspect.signature(member).parameters) <= parameters(file, name), name
