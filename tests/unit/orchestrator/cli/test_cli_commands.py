"""The command line's surface, its small commands, and its messages about bad input."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from command_line import CommandLine, write_sweep
from rich.console import Console

from surogate_bench import __version__
from surogate_bench.recipes import RECIPES
from surogate_bench_orchestrator.cli import app as cli
from surogate_bench_orchestrator.cli.commands.recipes import capabilities_here, recipe_table


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


def write(path: Path, **changes: Any) -> Path:
    return write_sweep(path, **{"recipes": ["bf16", "fp8"]} | changes)


def test_the_commands_and_their_options_are_these() -> None:
    group: Any = typer.main.get_command(cli.app)
    surface = {
        name: sorted(option for parameter in command.params for option in (parameter.opts or [parameter.name]))
        for name, command in group.commands.items()
    }
    assert surface == {
        "run": [
            "--context", "--json", "--namespace", "--no-reuse", "--no-wait", "--on", "--report", "--seed", "--slots",
            "--state-dir", "--store", "sweep",
        ],
        "status": ["--context", "--json", "--namespace", "--on", "--seed", "--state-dir", "--store", "sweep"],
        "report": ["--context", "--namespace", "--on", "--output", "--seed", "--state-dir", "--store", "sweep"],
        "logs": [
            "--context", "--namespace", "--on", "--seed", "--stage", "--state-dir", "--store", "--tail", "run_name",
            "sweep",
        ],
        "controller": ["--config", "--port"],
        "recipes": ["--json"],
        "doctor": ["--json", "--output", "--state-dir", "--store", "sweep"],
        "validate": ["--deep", "--json", "--seed", "--state-dir", "--store", "sweep"],
        "init": [
            "--accumulation", "--alpha", "--data", "--data-config", "--epochs", "--field", "--force", "--format",
            "--learning-rate", "--micro-batch-size", "--model", "--name", "--rank", "--recipe", "--seed", "--set",
            "--split", "--stdout", "--target", "--task", "--under", "--yes", "-y", "file",
        ],
        "export-base": ["--format", "--json", "--output", "--seed", "--state-dir", "--store", "recipe", "sweep"],
        "gc": ["--delete", "--json", "--store", "--superseded"],
        "render": ["--json", "--namespace", "--on", "--seed", "--slots", "--state-dir", "--store", "sweep"],
    }  # fmt: skip


def test_help_names_every_command(call: CommandLine) -> None:
    code, out, _ = call("--help")
    assert code == 0
    group: Any = typer.main.get_command(cli.app)
    shown = {words[0] for line in out.splitlines() if (words := line.strip("│ ").split())}
    assert {name for name, command in group.commands.items() if not command.hidden} <= shown


def test_version_is_shown(call: CommandLine) -> None:
    assert call("--version") == (0, f"{__version__}\n", "")


def test_recipes_lists_what_each_is_and_its_engine(call: CommandLine) -> None:
    code, out, _ = call("recipes")
    assert code == 0
    assert all(recipe.name in out for recipe in RECIPES)
    _, out, _ = call("recipes", "--json")
    listed = {recipe["name"]: recipe for recipe in json.loads(out)}
    assert list(listed) == [recipe.name for recipe in RECIPES]
    assert listed["bf16"]["engine"] == "torch"
    assert listed["fp4"]["engine"] == "emulated"
    assert listed["qbnb"]["engine"] == "bitsandbytes"
    assert all(recipe["can_run"] for recipe in listed.values())


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_name_of_a_recipe_is_cut_on_a_narrow_terminal(columns: int) -> None:
    out = io.StringIO()
    capabilities = capabilities_here(RECIPES)
    Console(width=columns, file=out).print(recipe_table(capabilities))
    assert "…" not in out.getvalue()
    words = set(out.getvalue().split())
    assert {recipe.name for recipe in RECIPES} <= words
    assert {here.engine for _, here in capabilities} <= words


def test_a_valid_sweep_is_reported_as_valid(call: CommandLine, tmp_path: Path) -> None:
    code, out, _ = call("validate", write(tmp_path / "sweep.yaml"))
    assert code == 0
    assert "is valid: sweep small" in out
    assert "2 runs and the base model" in out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sweeep": 1}, ["sweeep", "no such field"]),
        ({"recipes": ["fp9"]}, ["recipes", "fp9", "no such recipe"]),
        ({"training": {"max_steps": 2, "lora": {"r": 128}}}, ["training.lora.r", "128", "max_lora_rank 64"]),
        ({"data": {"path": "nowhere"}}, ["data.path", "nowhere", "no such folder", "Correct the path"]),
        ({"model": {"path": "nowhere"}}, ["model.path", "nowhere", "config.json"]),
        ({"evaluation": {"tasks_dir": "nowhere"}}, ["evaluation.tasks_dir", "nowhere", "is not a folder"]),
        (
            {"evaluation": {"task": "mmlu"}},
            ["evaluation.task", "mmlu", "no such task", "one of en_gsm8k, gsm8k, ro_gsm8k"],
        ),
        (
            {"training": {"max_steps": 2, "max_length": 100_000}},
            ["training.max_length", "100000", "at most 512 positions", "Lower it"],
        ),
        (
            {"adapters": [{"name": "theirs", "path": "nowhere"}]},
            ["adapters.theirs.path", "nowhere", "no such folder", "Correct the path"],
        ),
    ],
)
@pytest.mark.parametrize("command", ["validate", "doctor", "run"])
def test_bad_input_is_one_message_with_field_value_and_remedy(
    call: CommandLine, tmp_path: Path, changes: dict[str, Any], expected: list[str], command: str
) -> None:
    code, out, err = call(command, write(tmp_path / "sweep.yaml", **changes))
    assert code == 2
    assert out == ""
    assert all(part in err for part in expected), err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"], "nothing was started"


def test_a_missing_file_is_bad_input(call: CommandLine) -> None:
    code, _, err = call("run", "nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml" in err


def test_a_store_that_cannot_be_made_is_bad_input(call: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = call("run", write(tmp_path / "sweep.yaml"), "--store", tmp_path / "file" / "results")
    assert code == 2
    assert "store" in err


def test_a_store_with_an_unknown_scheme_is_bad_input(call: CommandLine, tmp_path: Path) -> None:
    code, _, err = call("status", write(tmp_path / "sweep.yaml"), "--store", "ftp://host/results")
    assert code == 2
    assert "ftp://host/results" in err


def test_an_unknown_option_is_bad_input(call: CommandLine) -> None:
    assert call("recipes", "--yaml")[0] == 2


def test_status_of_a_sweep_never_started_shows_every_run_as_pending(call: CommandLine, tmp_path: Path) -> None:
    code, out, _ = call("status", write(tmp_path / "sweep.yaml"))
    assert code == 0
    assert "0 of 3 runs ended" in out
    assert out.count("Pending") == 6
    assert "Not in use by any process" in out


@pytest.mark.parametrize(("command", "expected"), [("status", 0), ("render", 0), ("report", 1)])
def test_a_command_that_only_shows_a_sweep_never_started_leaves_nothing_behind(
    call: CommandLine, tmp_path: Path, command: str, expected: int
) -> None:
    code, _, err = call(command, write(tmp_path / "sweep.yaml"), "--store", tmp_path / "here" / "results")
    assert code == expected
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
    assert ("no run of sweep small has finished in file://" in err) == (command == "report")


def test_render_shows_every_task_and_starts_nothing(call: CommandLine, tmp_path: Path) -> None:
    sweep = write(tmp_path / "sweep.yaml")
    code, out, _ = call("render", sweep, "--slots", 1)
    tasks = yaml.safe_load(out)
    assert code == 0
    assert [task["request"]["kind"] for task in tasks] == [
        "prepare", "check", "train", "train", "serve", "evaluate", "evaluate", "evaluate",
    ]  # fmt: skip
    assert {task["request"]["side_by_side"] for task in tasks if task["request"]["kind"] == "train"} == {1}
    assert all(Path(task["command"][0]).is_absolute() for task in tasks)
    assert json.loads(call("render", sweep, "--slots", 1, "--json")[1]) == tasks
    assert not (tmp_path / ".surogate-bench").exists()


def test_an_error_of_the_operating_system_is_one_message(
    call: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/full/disk")

    monkeypatch.setattr("surogate_bench_orchestrator.cli.sweep_file.load_sweep", full)
    code, _, err = call("validate", write(tmp_path / "sweep.yaml"))
    assert code == 1
    assert "No space left on device (/full/disk)" in err


def test_local_files_that_are_there_are_accepted(call: CommandLine, tmp_path: Path) -> None:
    for name in ("config.json", "train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    local = {"model": {"path": "."}, "data": {"path": "."}, "evaluation": {"tasks_dir": "."}}
    assert call("validate", write(tmp_path / "sweep.yaml", **local))[0] == 0


def test_a_model_whose_settings_cannot_be_read_is_refused(call: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    code, _, err = call("validate", write(tmp_path / "sweep.yaml", model={"path": "."}))
    assert code == 2
    assert "model.path: is not a model folder: its config.json is not a JSON object" in err


def test_a_trainer_whose_program_is_missing_is_refused_by_validate(call: CommandLine, tmp_path: Path) -> None:
    trainers = [{"name": "theirs", "command": ["no-such-program-here"]}]
    code, _, err = call("validate", write(tmp_path / "sweep.yaml", trainers=trainers))
    assert code == 2
    assert "trainers.theirs.command: there is no such program (got 'no-such-program-here')" in err
    in_an_image = [trainers[0] | {"image": "registry.example.com/trainer:1"}]
    assert call("validate", write(tmp_path / "sweep.yaml", trainers=in_an_image))[0] == 0


def test_render_on_kubernetes_shows_the_resource_and_needs_no_cluster(call: CommandLine, tmp_path: Path) -> None:
    sweep = write(tmp_path / "sweep.yaml")
    code, out, _ = call("render", sweep, "--on", "kubernetes", "--namespace", "lab")
    resource = yaml.safe_load(out)
    assert code == 0
    assert (resource["kind"], resource["metadata"]) == ("RecipeSweep", {"name": "small", "namespace": "lab"})
    assert json.loads(call("render", sweep, "--on", "kubernetes", "--namespace", "lab", "--json")[1]) == resource


def test_local_folders_cannot_be_rendered_for_a_cluster(call: CommandLine, tmp_path: Path) -> None:
    code, _, err = call("render", write(tmp_path / "sweep.yaml", data={"path": "."}), "--on", "kubernetes")
    assert code == 2
    assert all(part in err for part in ("data.path", str(tmp_path), "hub or builtin"))


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--on", "kubernetes", "--store", "elsewhere"], "--store"),
        (["--on", "kubernetes", "--slots", "1"], "--slots"),
        (["--namespace", "lab"], "--namespace"),
        (["--report", "folder"], "--report"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(
    call: CommandLine, tmp_path: Path, options: list[str], refused: str
) -> None:
    code, _, err = call("run", write(tmp_path / "sweep.yaml"), *options)
    assert code == 2
    assert f"{refused}: has no effect on" in err


def test_without_a_kubeconfig_the_message_says_so(
    call: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    code, _, err = call("status", "small", "--on", "kubernetes")
    assert code == 2
    assert "KUBECONFIG" in err


def test_the_kubernetes_client_is_not_imported_for_a_sweep_on_this_machine() -> None:
    program = (
        "import sys; from surogate_bench_orchestrator.cli import app; "
        "from surogate_bench_orchestrator.cli.commands import recipes, validate; "
        "from surogate_bench_orchestrator.cli.targets.local import target; sys.exit('kubernetes' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_logs_of_a_sweep_that_never_ran_here(call: CommandLine, tmp_path: Path) -> None:
    sweep = write(tmp_path / "sweep.yaml")
    code, _, err = call("logs", sweep, "bf16-s0")
    assert code == 1
    assert "has not started here" in err
    code, _, err = call("logs", sweep, "fp9-s0")
    assert code == 2
    assert "Use one of base, bf16-s0, fp8-s0, prepare, task-check, serving-check, model-server" in err


def test_seeds_of_the_command_line_take_the_place_of_those_in_the_file(call: CommandLine, tmp_path: Path) -> None:
    sweep, same = write(tmp_path / "sweep.yaml"), write(tmp_path / "same.yaml", seeds=[3, 1])
    code, out, _ = call("render", sweep, "--seed", 3, "--seed", 1, "--json")
    assert code == 0
    assert [task["name"] for task in json.loads(out)] == [
        task["name"] for task in json.loads(call("render", same, "--json")[1])
    ]
    requests = [task["request"]["sweep"]["seeds"] for task in json.loads(out)]
    assert requests == [[3, 1]] * len(requests)
    resource = yaml.safe_load(call("render", sweep, "--seed", 3, "--seed", 1, "--on", "kubernetes")[1])
    assert resource["spec"]["seeds"] == [3, 1]
    status = json.loads(call("status", sweep, "--seed", 3, "--seed", 1, "--json")[1])
    assert status["spec_hash"] == json.loads(call("status", same, "--json")[1])["spec_hash"]
    assert {run["name"] for run in status["runs"]} == {"base", "bf16-s3", "bf16-s1", "fp8-s3", "fp8-s1"}


def test_the_seeds_of_the_file_given_again_are_the_same_experiment(call: CommandLine, tmp_path: Path) -> None:
    sweep = write(tmp_path / "sweep.yaml")
    plain, given = (json.loads(call("status", sweep, *seeds, "--json")[1]) for seeds in ((), ("--seed", 0)))
    assert plain == given


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seed", -1], ["--seed", "-1", "whole numbers of at least 0"]),
        (["--seed", "one"], ["--seed", "integer"]),
        (["--seed", 0, "--seed", 0], ["--seed", "0 0", "each given once", "--seed 0 --seed 1"]),
    ],
)
def test_seeds_that_cannot_be_are_refused(
    call: CommandLine, tmp_path: Path, arguments: list[object], expected: list[str]
) -> None:
    code, _, err = call("run", write(tmp_path / "sweep.yaml"), *arguments)
    assert code == 2
    assert all(part in err for part in expected)
