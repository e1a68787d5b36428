"""The object store's contract, and what it means for a stage to be done."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from finished_stages import manifest_of
from sweeps import small_sweep

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import fetch_stage, publish_stage, read_manifest
from surogate_bench.stages.requests import TrainRequest
from surogate_bench.store.object_store import ObjectStore, open_store


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "weights.bin").write_bytes(b"\x00\x01")
    (folder / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    return folder


def a_manifest(run: str = "bf16-s0") -> Manifest:
    request = TrainRequest(sweep=small_sweep(), store="file:///unused", recipe="bf16", seed=0)
    return manifest_of(request).model_copy(update={"run": run})


def test_objects_are_listed_read_and_deleted(store: ObjectStore) -> None:
    store.put("a/1", b"one")
    store.put("a/2", b"two")
    store.put("b/1", b"other")
    assert [(info.key, info.size) for info in store.list("a")] == [("a/1", 3), ("a/2", 3)]
    assert store.get("a/1") == b"one"
    assert store.exists("a/1")
    store.delete(["a/1", "never-there"])
    assert store.get("a/1") is None
    assert not store.exists("a/1")


def test_of_many_creators_exactly_one_wins(store: ObjectStore) -> None:
    with ThreadPoolExecutor(16) as pool:
        wins = list(pool.map(lambda n: store.create("prize", str(n).encode()), range(64)))
    assert wins.count(True) == 1
    assert store.get("prize") == str(wins.index(True)).encode()


def test_a_store_that_honours_the_condition_passes_the_probe_and_keeps_nothing(store: ObjectStore) -> None:
    store.verify_conditional_writes()
    assert store.list(".probes") == []


def test_a_store_that_ignores_the_condition_is_refused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObjectStore, "create", lambda self, key, data: self.put(key, data) or True)
    with pytest.raises(ConfigError, match="ignores the condition"):
        store.verify_conditional_writes()


@pytest.mark.parametrize(
    ("location", "expected"), [("ftp://host/x", "unknown scheme"), ("/proc/nowhere/store", "cannot be created")]
)
def test_a_bad_location_is_refused(location: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        open_store(location)


def test_a_tree_survives_the_round_trip(store: ObjectStore, outputs: Path, tmp_path: Path) -> None:
    store.put_tree("tree", outputs)
    written = store.fetch_tree("tree", tmp_path / "copy")
    assert len(written) == 2
    assert (tmp_path / "copy/adapter/weights.bin").read_bytes() == b"\x00\x01"


def test_a_stage_is_done_only_once_its_manifest_is_there(store: ObjectStore, outputs: Path) -> None:
    assert read_manifest(store, "stage") is None
    assert publish_stage(store, "stage", outputs, a_manifest())
    manifest = read_manifest(store, "stage")
    assert manifest is not None
    assert manifest.files["adapter/weights.bin"].sha256 == hashlib.sha256(b"\x00\x01").hexdigest()
    assert manifest.files["metrics.jsonl"].size == 3


def test_the_second_writer_of_a_stage_changes_nothing(store: ObjectStore, outputs: Path) -> None:
    publish_stage(store, "stage", outputs, a_manifest("first-s0"))
    (outputs / "metrics.jsonl").write_text("other\n", encoding="utf-8")
    assert not publish_stage(store, "stage", outputs, a_manifest("second-s0"))
    manifest = read_manifest(store, "stage")
    assert manifest is not None
    assert manifest.run == "first-s0"
    assert store.get("stage/metrics.jsonl") == b"{}\n"


def test_a_fetched_stage_is_verified_against_its_digests(store: ObjectStore, outputs: Path, tmp_path: Path) -> None:
    publish_stage(store, "stage", outputs, a_manifest())
    fetch_stage(store, "stage", tmp_path / "copy", under="adapter/")
    assert (tmp_path / "copy/adapter/weights.bin").exists()
    assert not (tmp_path / "copy/metrics.jsonl").exists()
    store.put("stage/adapter/weights.bin", b"tampered")
    with pytest.raises(PermanentError, match="differs from its manifest"):
        fetch_stage(store, "stage", tmp_path / "again")


def test_an_unfinished_stage_cannot_be_fetched(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="not finished"):
        fetch_stage(store, "stage", tmp_path / "copy")


def test_a_manifest_that_is_none_is_an_error_and_not_absence(store: ObjectStore) -> None:
    store.put("stage/manifest.json", b"{}")
    with pytest.raises(PermanentError, match="is not a manifest"):
        read_manifest(store, "stage")


def test_a_missing_folder_that_is_only_read_is_an_empty_store(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "store"
    reading = open_store(str(folder), create=False)
    assert reading.list("") == []
    assert reading.get("key") is None
    assert not reading.exists("key")
    assert not (tmp_path / "a").exists()
    made = open_store(str(folder))
    made.put("key", b"value")
    assert reading.url == made.url
    assert open_store(str(folder), create=False).get("key") == b"value"
