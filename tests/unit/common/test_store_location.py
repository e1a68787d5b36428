"""A store is found again under the URL that it was given, whatever its path is called."""

import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand_ins.s3 import CREDENTIALS, Bucket, serving

from surogate_bench.errors import ConfigError
from surogate_bench.stages.model_source import local_folder
from surogate_bench.store.location import parse_location
from surogate_bench.store.object_store import open_store

NAMES = [
    "My José", "a#b", "a%20b", "a?b", "it's", 'a"b', "100%", "%zz", "a:b", "a;b&c=d+e", "~x", "a\\b", "[x]{y}", "数据",
    "a|b", " lead", "line\nbreak", "-x", "$HOME", "café\u0301", os.fsdecode(b"latin-\xe9"), "s3-like", "x" * 200,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_local_store_is_the_same_by_folder_and_by_its_url(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "results"
    made = open_store(str(folder))
    made.put("key", b"value")
    again = open_store(made.url)
    assert again.get("key") == b"value"
    assert again.url == made.url
    assert local_folder(again) == folder
    assert (folder / "key").is_file()
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208 - the bare names


def test_a_file_url_may_be_encoded_or_not(tmp_path: Path) -> None:
    (tmp_path / "st file#1").mkdir()
    for spelling in ("st file#1", "st%20file#1", "st%20file%231"):
        assert parse_location(f"file://{tmp_path}/{spelling}") == tmp_path / "st file#1"
    assert parse_location(f"FILE://localhost{tmp_path}/") == tmp_path


@pytest.mark.parametrize("name", ["results", "./results/", "results//", "a/../results"])
def test_a_relative_folder_is_taken_from_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_location(name) == tmp_path / "results"


def test_a_home_folder_with_a_blank_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "My José #1"))
    assert parse_location("~/results") == tmp_path / "My José #1" / "results"


PREFIXES = ["p", "a/b", "My José", "a#b", "a?b", "it's", "a%20b", "100%25", "100%", "a+b", "a=b&c", "a*b", "~x", "数据"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_remote_store_is_the_same_by_what_was_written_and_by_its_url(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Bucket()) as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        made = open_store(f"s3://bucket/{prefix}/", patience=timedelta(0))
        made.put("key", b"value")
        again = open_store(made.url, patience=timedelta(0))
        assert again.url == made.url
        assert again.get("key") == b"value"
        assert len(bucket.objects) == 1


def test_prefixes_that_differ_after_a_hash_or_question_mark_are_different_stores() -> None:
    urls = [parse_location(f"s3://bucket/x{rest}") for rest in ("", "#1", "#2", "?1", "?2")]
    assert len(set(urls)) == len(urls)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/"), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_every_prefix_has_one_spelling(prefix: str) -> None:
    if prefix in {".", ".."}:
        return
    url = parse_location(f"s3://bucket/{quote(prefix)}")
    assert isinstance(url, str)
    assert parse_location(url) == url
    assert url.isascii()


def test_plain_urls_stay_as_they_are() -> None:
    for url in ("s3://bucket", "s3://bucket/a/b-c_d.e", "gs://bucket/x", "az://container/x~y"):
        assert parse_location(url) == url


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("", "is empty"), ("  ", "is empty"),
        ("s3://", "names no bucket"), ("s3:///p", "names no bucket"), ("gs://", "names no bucket"),
        ("s3://bucket//a//b", "empty part"), ("s3://bucket/a//b", "empty part"),
        ("s3://bucket/../other", "empty part, '.' or '..'"), ("s3://bucket/%2e%2e/x", "empty part, '.' or '..'"),
        ("s3:bucket", "is an incomplete URL"), ("s3:/bucket/x", "is an incomplete URL"),
        ("file:results", "is an incomplete URL"), ("file:/tmp", "is an incomplete URL"),
        ("file://results", "names a machine"),
        ("file://host/folder", "names a machine"), ("file://", "names no folder"),
        ("s3://key:secret@bucket/x", "where the bucket's name belongs"),
        ("s3://bucket:80/x", "where the bucket's name belongs"),
        ("s3://my bucket/x", "where the bucket's name belongs"), ("s3://bucket/%ff", "is not UTF-8"),
        ("s3://bucket/a\nb", "control character"), ("s3://bucket/%00", "control character"),
        ("http://host/bucket", "unknown scheme"), ("file:///a%00b", "NUL"), ("a\0b", "NUL"),
        ("~nosuchuser/results", "there is no user nosuchuser"),
    ],
)  # fmt: skip
def test_what_names_no_store_is_refused_in_one_line(location: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(location)
    assert caught.value.field == "store"
    assert expected in caught.value.problem
    assert "\n" not in str(caught.value)


def test_without_a_home_folder_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("", "relative"):
        monkeypatch.setenv("HOME", home)
        with pytest.raises(ConfigError, match=f"HOME is '{home}'"):
            open_store("~/results")


def test_a_current_folder_that_was_deleted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="current folder: has been deleted"):
        open_store("results")


@pytest.mark.parametrize(
    "value", ["127.0.0.1:9000", "localhost", "htp://x", "http://", "http://a b", "http://h:99999", "//h"]
)
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
def test_an_endpoint_that_is_no_address_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="must have the form http://host:9000") as caught:
        open_store("s3://bucket")
    assert (caught.value.field, caught.value.value) == (name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_REGION", "eu west"), ("AWS_DEFAULT_REGION", "é"), ("AWS_ACCESS_KEY_ID", "key\n"),
        ("AWS_SECRET_ACCESS_KEY", "secret\n"), ("AWS_SESSION_TOKEN", "to\nken"),
        ("AWS_SKIP_SIGNATURE", "maybe"), ("AWS_CHECKSUM_ALGORITHM", "md4"), ("AWS_SERVER_SIDE_ENCRYPTION", "rot13"),
        ("AWS_CONDITIONAL_PUT", "sometimes"),
    ],
)  # fmt: skip
def test_a_variable_that_cannot_work_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for each in CREDENTIALS:
        monkeypatch.setenv(each, "x")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        open_store("s3://bucket")
    assert caught.value.field == name
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_without_its_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY: is not set"):
        open_store("s3://bucket")


def test_variables_without_a_value_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Bucket()) as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_CHECKSUM_ALGORITHM", "AWS_SKIP_SIGNATURE"):
            monkeypatch.setenv(name, "")
        open_store("s3://bucket", patience=timedelta(0)).verify_conditional_writes()
    assert os.environ["AWS_SESSION_TOKEN"] == ""
