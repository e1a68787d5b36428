"""A remote store that is away for a while."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from threading import Event

import pytest
from stand_ins.s3 import Bucket, serving

from surogate_bench.errors import TransientError
from surogate_bench.store.object_store import ObjectStore, open_store

AT_ONCE = timedelta(milliseconds=10)
PATIENCE = timedelta(seconds=60)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with serving(Bucket(objects={"key": b"data"})) as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        yield served


class OnNotice(logging.Handler):
    """Does something as soon as a warning says that the store is waited for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.noticed = Event()
        self.bucket: Bucket | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        if self.bucket is not None:
            self.bucket.refusal = None
            self.bucket.released.set()
        self.noticed.set()


@pytest.fixture
def notices() -> Iterator[OnNotice]:
    handler = OnNotice()
    logger = logging.getLogger("surogate_bench.store.waiting")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_without_patience_the_first_failure_counts_and_says_why(bucket: Bucket) -> None:
    bucket.refusal = (503, "SlowDown")
    store = open_store("s3://bucket", patience=timedelta(0))
    with pytest.raises(
        TransientError, match=r"'key' in s3://bucket: the store answers 503 .*SlowDown: Words of SlowDown"
    ):
        store.get("key")


@pytest.mark.parametrize("operation", ["get", "put"])
@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (501, ""), (507, "StorageFull"), (500, "InternalError")]
)
def test_a_wait_for_a_busy_store_is_said_with_its_answer_and_then_goes_on(
    bucket: Bucket, notices: OnNotice, operation: str, status: int, code: str
) -> None:
    bucket.refusal = (status, code)
    notices.bucket = bucket
    store = open_store("s3://bucket", patience=PATIENCE, notice_after=AT_ONCE)
    ask(store, operation)
    assert notices.messages[0].startswith(f"waiting for the store s3://bucket: the store answers {status} ")
    assert code in notices.messages[0]
    assert notices.messages[0].endswith("a request is abandoned after 60 s")
    assert notices.messages[-1] == "the store s3://bucket responds again"


def test_a_wait_for_a_store_that_does_not_answer_is_said(bucket: Bucket, notices: OnNotice) -> None:
    bucket.silent.set()
    notices.bucket = bucket
    ask(open_store("s3://bucket", patience=PATIENCE, notice_after=AT_ONCE), "get")
    assert "waiting for the store s3://bucket: the store does not answer" in notices.messages[0]


def test_a_store_that_is_only_slow_is_not_said_to_be_away(bucket: Bucket, notices: OnNotice) -> None:
    """The first request waits until another one, that of the notice, was answered."""
    store = open_store("s3://bucket", patience=PATIENCE, notice_after=AT_ONCE)
    bucket.slow_keys.add("key")
    assert store.get("key") == b"data"
    assert any(".probes" in request for request in bucket.requests)
    assert notices.messages == []


def ask(store: ObjectStore, operation: str) -> None:
    if operation == "get":
        assert store.get("key") == b"data"
    else:
        store.put("key", b"data")


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://nosuch.invalid"])
def test_a_store_that_cannot_be_reached_says_what_the_network_said(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with pytest.raises(TransientError, match=r"Connection refused|failed to lookup address"):
        open_store("s3://bucket", patience=timedelta(0)).get("key")
