"""A refusal by a store is reported with its reason, and the remedy that fits it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from obstore.exceptions import GenericError
from stand_ins.s3 import Bucket, serving

from surogate_bench.errors import ConfigError, StoreAwayError, StoreRefusedError
from surogate_bench.store.errors import translated
from surogate_bench.store.object_store import ObjectStore, open_store


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with serving(Bucket()) as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        yield served


@pytest.fixture
def store(bucket: Bucket) -> ObjectStore:
    assert bucket.address
    return open_store("s3://bucket/prefix", patience=timedelta(0))


REFUSALS = [
    (403, "RequestTimeTooSkewed", "clock differs", "Set the clock"),
    (403, "SignatureDoesNotMatch", "the secret key does not belong", "Correct AWS_SECRET_ACCESS_KEY"),
    (403, "InvalidAccessKeyId", "does not know the access key", "Correct AWS_ACCESS_KEY_ID"),
    (404, "InvalidAccessKeyId", "does not know the access key", "Correct AWS_ACCESS_KEY_ID"),
    (400, "ExpiredToken", "session token has expired", "AWS_SESSION_TOKEN"),
    (403, "QuotaExceeded", "no room left", "Free some space or raise its quota"),
    (507, "XMinioStorageFull", "no room left", "Free some space or raise its quota"),
    (507, "", "no room left", "Free some space or raise its quota"),
    (403, "AccessDenied", "lack the right", "Grant them"),
    (404, "NoSuchBucket", "no such bucket", "Create the bucket"),
    (404, "", "the bucket or the access key does not exist", "Create the bucket"),
    (400, "InvalidBucketName", "not a valid bucket name", "Correct the URL"),
    (301, "PermanentRedirect", "in another region", "Set AWS_REGION"),
    (400, "AuthorizationHeaderMalformed", "in another region", "Set AWS_REGION"),
    (501, "NotImplemented", "does not support", "conditional writes"),
    (403, "NobodyKnowsThis", "denies access", "Check the credentials"),
    (401, "", "does not accept the credentials", "Correct them"),
    (418, "", "refuses the request", "Check the URL"),
]


@pytest.mark.parametrize(("status", "code", "problem", "remedy"), REFUSALS)
def test_a_refused_probe_names_the_stores_code_and_its_own_remedy(
    bucket: Bucket, store: ObjectStore, status: int, code: str, problem: str, remedy: str
) -> None:
    bucket.refusal = (status, code)
    with pytest.raises(ConfigError) as caught:
        store.verify_conditional_writes()
    assert caught.value.field == "store"
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    if code and status != 301:
        assert f"{status} " in caught.value.problem
        assert f"{code}: Words of {code}." in caught.value.problem
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("operation", ["get", "exists", "list", "put", "delete"])
@pytest.mark.parametrize(("status", "code"), [(400, "ExpiredToken"), (403, "RequestTimeTooSkewed")])
def test_every_operation_names_the_stores_code(
    bucket: Bucket, store: ObjectStore, operation: str, status: int, code: str
) -> None:
    bucket.refusal = (status, code)
    calls = {
        "get": lambda: store.get("key"),
        "exists": lambda: store.exists("key"),
        "list": lambda: store.list("key"),
        "put": lambda: store.put("key", b""),
        "delete": lambda: store.delete(["key"]),
    }
    with pytest.raises(StoreRefusedError, match=f"{code}: Words of {code}"):
        calls[operation]()


def test_a_missing_bucket_is_not_taken_for_a_missing_object(bucket: Bucket, store: ObjectStore) -> None:
    assert store.get("key") is None
    bucket.refusal = (404, "NoSuchBucket")
    with pytest.raises(StoreRefusedError, match="no such bucket"):
        store.get("key")


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, ""), (400, "RequestTimeout"), (502, "")]
)
def test_what_may_pass_is_not_taken_for_a_refusal(bucket: Bucket, store: ObjectStore, status: int, code: str) -> None:
    bucket.refusal = (status, code)
    with pytest.raises(StoreAwayError, match=f"the store answers {status} .*{code}"):
        store.get("key")


@pytest.mark.parametrize(
    ("number", "words", "remedy"),
    [
        (28, "No space left on device", "Free some space"),
        (122, "Disk quota exceeded", "Free some space"),
        (30, "Read-only file system", "may write"),
        (36, "File name too long", "shorter path"),
    ],
)
def test_what_the_operating_system_refuses_is_named(number: int, words: str, remedy: str) -> None:
    library = GenericError(f"Generic LocalFileSystem error: Unable to copy data to file: {words} (os error {number})")
    with (
        pytest.raises(StoreRefusedError, match=rf"'key' in file:///x: {words}\. .*{remedy}"),
        translated("file:///x", "key"),
    ):
        raise library


def test_a_local_store_that_is_a_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    for create in (True, False):
        with pytest.raises(ConfigError, match=r"store: is a file, not a folder \(got '.*/results'\)"):
            open_store(str(tmp_path / "results"), create=create)


def test_a_folder_in_place_of_an_object_is_refused_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(StoreRefusedError, match=r"Not a directory|File exists"):
        open_store(str(tmp_path)).put("a/b", b"")
