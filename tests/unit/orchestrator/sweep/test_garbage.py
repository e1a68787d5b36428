"""What a store holds that no sweep needs: what goes, what stays, and that removal is safe beside running sweeps."""

from pathlib import Path
from typing import Any

import pytest
from finished_stages import publish
from rich.console import Console
from sweeps import small_sweep

from surogate_bench.layout import manifest_key
from surogate_bench.stages.publication import fetch_stage, read_manifest, reuse_stage
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_orchestrator.cli.commands.gc import collect_garbage
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.sweep import garbage
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.garbage import Garbage, list_garbage, remove
from surogate_bench_orchestrator.sweep.locks import Lease, LeaseLostError, sweep_lock

RECIPES = ["bf16", "fp8"]
CLOCK = SystemClock()


class Results:
    """A store that sweeps have left their results in, the later ones last."""

    def __init__(self, folder: Path) -> None:
        self.store: ObjectStore = open_store(str(folder / "store"))
        self._scratch = folder / "scratch"

    def finish(self, *, reuse_of: Plan | None = None, **changes: Any) -> Plan:
        """A finished sweep, which refers to the stages that it has in common with another one."""
        sweep = small_sweep(**{"recipes": RECIPES} | changes)
        laid_out = plan(sweep, self.store.url)
        self.store.put(laid_out.layout.spec, sweep.model_dump_json().encode())
        sources = {} if reuse_of is None else {run.name: run for run in reuse_of.runs}
        publish(self.store, laid_out.prepare, self._scratch / laid_out.layout.spec_hash)
        for run in laid_out.runs:
            for task, source in (
                (run.train, sources[run.name].train if run.name in sources else None),
                (run.evaluate, sources[run.name].evaluate if run.name in sources else None),
            ):
                if task is not None and source is not None:
                    assert reuse_stage(self.store, str(task.output), run=run.name, source=str(source.output))
                elif task is not None:
                    publish(self.store, task, self._scratch / laid_out.layout.spec_hash)
        return laid_out

    def keys(self, laid_out: Plan) -> set[str]:
        return {info.key.removeprefix(f"{laid_out.layout.root}/") for info in self.store.list(laid_out.layout.root)}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def collect(results: Results) -> tuple[Garbage, ...]:
    return remove(results.store, list_garbage(results.store, CLOCK), CLOCK)


def test_a_store_of_sweeps_in_use_has_no_garbage(results: Results) -> None:
    results.finish()
    results.finish(name="other", recipes=["bf16"])
    assert list_garbage(results.store, CLOCK) == ()


def test_of_a_superseded_version_what_the_later_one_refers_to_stays(results: Results, tmp_path: Path) -> None:
    old = results.finish(recipes=["bf16", "fp8"])
    new = results.finish(recipes=["bf16", "qfp4"], reuse_of=old)
    (found,) = list_garbage(results.store, CLOCK)
    assert (found.sweep, found.spec_hash, found.superseded) == ("small", old.layout.spec_hash, True)
    before = results.keys(new)
    collect(results)
    assert results.keys(new) == before
    assert {key.rpartition("/")[0] for key in results.keys(old) if key.endswith("manifest.json")} == {
        "prepare", "runs/base/eval", "runs/bf16-s0/train", "runs/bf16-s0/eval",
    }  # fmt: skip
    assert "spec.json" in results.keys(old)  # without it, what is kept would not be found again
    fetch_stage(results.store, new.layout.train("bf16-s0"), tmp_path / "fetched")


def test_a_superseded_version_that_nothing_refers_to_goes_whole(results: Results) -> None:
    old = results.finish(training={"max_steps": 3})
    new = results.finish()
    collect(results)
    assert results.keys(old) == set()
    assert results.keys(new)
    assert list_garbage(results.store, CLOCK) == ()


def test_a_version_without_a_result_supersedes_nothing(results: Results) -> None:
    good = results.finish()
    refused = small_sweep(recipes=RECIPES, seeds=[7])
    results.store.put(plan(refused, results.store.url).layout.spec, refused.model_dump_json().encode())
    before = results.keys(good)
    assert list_garbage(results.store, CLOCK) == ()
    collect(results)
    assert results.keys(good) == before


def test_removal_stops_where_another_process_took_a_version_over(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = results.finish(training={"max_steps": 3})
    results.finish()
    clock = _SlowClock()
    monkeypatch.setattr(garbage, "sweep_lock", lambda store, layout, _clock: Lease(store, f".locks/{layout}", clock))
    found = list_garbage(results.store, CLOCK)
    delete = ObjectStore.delete

    def delete_slowly(store: ObjectStore, keys: list[str]) -> None:
        delete(store, keys)
        if keys and keys[0].startswith(old.layout.root):
            clock.time += 1000
            store.create(f".locks/{old.layout}/00000007.json", b'{"expires": 1e12}')

    monkeypatch.setattr(ObjectStore, "delete", delete_slowly)
    with pytest.raises(LeaseLostError):
        remove(results.store, found, CLOCK)
    assert f"{old.layout.root}/spec.json" in {info.key for info in results.store.list(old.layout.root)}


class _SlowClock(SystemClock):
    """Time passes with the store's answers."""

    time = 0.0

    def now(self) -> float:
        return self.time


def test_another_sweep_may_refer_to_it_too(results: Results) -> None:
    old = results.finish()
    results.finish(training={"max_steps": 3})
    results.finish(name="other", reuse_of=old)
    collect(results)
    assert {"runs/bf16-s0/train/manifest.json", "runs/fp8-s0/train/manifest.json"} <= results.keys(old)


def test_checkpoints_of_a_finished_training_go_and_those_of_an_unfinished_one_stay(results: Results) -> None:
    laid_out = results.finish()
    left_over = f"{laid_out.layout.train('bf16-s0')}/checkpoints/step-1.safetensors"
    needed = f"{laid_out.layout.train('fp8-s0')}/checkpoints/step-1.safetensors"
    results.store.put(left_over, b"x")
    results.store.put(needed, b"x")
    results.store.delete([manifest_key(laid_out.layout.train("fp8-s0"))])
    (removed,) = collect(results)
    assert [info.key for info in removed.objects] == [left_over]
    assert results.store.exists(needed)


def test_a_version_that_is_worked_on_stays_with_what_it_refers_to(results: Results) -> None:
    oldest = results.finish()
    older = results.finish(seeds=[0, 1], reuse_of=oldest)
    results.finish(training={"max_steps": 3})
    lock = sweep_lock(results.store, older.layout, CLOCK)
    assert lock.try_acquire()
    try:
        busy = {found.spec_hash: bool(found.busy) for found in list_garbage(results.store, CLOCK)}
        assert busy[older.layout.spec_hash]
        before = results.keys(older), results.keys(oldest)
        collect(results)
        assert (results.keys(older), results.keys(oldest)) == before
    finally:
        lock.release()


def test_what_comes_to_be_referred_to_meanwhile_stays(results: Results, tmp_path: Path) -> None:
    old = results.finish()
    new = results.finish(training={"max_steps": 3})
    found = list_garbage(results.store, CLOCK)
    later = f"{new.layout.root}/runs/later/train"
    assert reuse_stage(results.store, later, run="later", source=old.layout.train("bf16-s0"))
    remove(results.store, found, CLOCK)
    assert read_manifest(results.store, old.layout.train("bf16-s0")) is not None
    fetch_stage(results.store, later, tmp_path / "fetched")


def test_a_removal_that_was_interrupted_is_finished_by_the_next(results: Results) -> None:
    old = results.finish(training={"max_steps": 3})
    results.finish()
    manifests = [info.key for info in results.store.list(old.layout.root) if info.key.endswith("manifest.json")]
    results.store.delete(manifests)
    collect(results)
    assert results.keys(old) == set()


def test_the_command_shows_first_and_removes_when_asked_to(
    results: Results, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old = results.finish(training={"max_steps": 3})
    results.finish()
    location = str(tmp_path / "store")
    consoles = Consoles(output=Console(width=160), messages=Console(stderr=True))
    for delete, expected in ((False, "--delete removes it"), (True, "Removed")):
        collect_garbage(location, delete=delete, superseded=False, as_json=False, consoles=consoles)
        output = capsys.readouterr().out
        assert old.layout.spec_hash in output
        assert expected in output
    collect_garbage(location, delete=False, superseded=False, as_json=False, consoles=consoles)
    assert "can be removed" in capsys.readouterr().out


def test_a_superseded_version_with_a_report_goes_on_request_only(results: Results) -> None:
    three = results.finish(seeds=[0, 1, 2])
    results.store.put(f"{three.layout.report}/summary.json", b"{}")
    one = results.finish(seeds=[0])
    before = results.keys(three)
    (found,) = list_garbage(results.store, CLOCK)
    assert (found.spec_hash, found.superseded, found.complete) == (three.layout.spec_hash, True, True)
    consoles = Consoles(output=Console(quiet=True), messages=Console(quiet=True))
    collect_garbage(results.store.url, delete=True, superseded=False, as_json=False, consoles=consoles)
    assert results.keys(three) == before
    collect_garbage(results.store.url, delete=True, superseded=True, as_json=False, consoles=consoles)
    assert results.keys(three) == set()
    assert results.keys(one)


def test_what_a_kept_version_refers_to_is_kept(results: Results) -> None:
    first = results.finish(recipes=["bf16"])
    reported = results.finish(recipes=["bf16", "qfp4"], reuse_of=first)
    results.store.put(f"{reported.layout.report}/summary.json", b"{}")
    results.finish(recipes=["fp8"])
    consoles = Consoles(output=Console(quiet=True), messages=Console(quiet=True))
    collect_garbage(results.store.url, delete=True, superseded=False, as_json=False, consoles=consoles)
    assert "runs/bf16-s0/train/manifest.json" in results.keys(first)
