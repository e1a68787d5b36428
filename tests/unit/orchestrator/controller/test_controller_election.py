"""Leader election on the library's lock: what happens when the API is away, and when a replica leaves."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3
from kubernetes.client import ApiException, V1Lease, V1LeaseSpec
from waiting import PATIENCE_S

from surogate_bench_orchestrator.controller import election
from surogate_bench_orchestrator.controller.election import Election


class Leases:
    """The API of one Lease."""

    def __init__(self) -> None:
        self.lease: V1Lease | None = None
        self.away = False
        self.asked = threading.Event()

    def read_namespaced_lease(self, name: str, namespace: str, **_: Any) -> V1Lease:
        del name, namespace
        self._answer()
        if self.lease is None:
            raise ApiException(status=404, reason="Not Found", body='{"code": 404}')
        return self.lease

    def create_namespaced_lease(self, namespace: str, body: V1Lease, **_: Any) -> V1Lease:
        del namespace
        self._answer()
        self.lease = body
        return body

    def replace_namespaced_lease(self, name: str, namespace: str, body: V1Lease, **_: Any) -> None:
        del name, namespace
        self._answer()
        self.lease = body

    def _answer(self) -> None:
        self.asked.set()
        if self.away:
            raise urllib3.exceptions.ProtocolError("connection refused")

    @property
    def holder(self) -> Any:
        return self.lease.spec.holder_identity if self.lease else None


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Leases:
    made = Leases()
    monkeypatch.setattr(election, "CoordinationV1Api", lambda _: made)
    monkeypatch.setattr(election, "_RETRY_S", 1)
    monkeypatch.setattr(election, "_RENEW_S", 2)
    monkeypatch.setattr(election, "_LEASE_S", 600)  # a leader that is slow to renew keeps it
    return made


class Candidate:
    def __init__(self, name: str) -> None:
        self.leads, self.lost = threading.Event(), threading.Event()
        self.election = Election(None, "lab", name, on_started=self.leads.set, on_lost=self.lost.set)


def test_the_first_leads_and_the_second_follows_at_once_when_it_leaves(leases: Leases) -> None:
    first, second = Candidate("first"), Candidate("second")
    first.election.start()
    assert first.leads.wait(PATIENCE_S)
    second.election.start()
    assert leases.holder == "first"
    assert not second.leads.is_set()
    first.election.release()
    assert second.leads.wait(PATIENCE_S)
    assert leases.holder == "second"
    assert first.lost.wait(PATIENCE_S)
    second.election.release()


def test_a_leader_that_cannot_renew_knows_that_it_has_lost(leases: Leases) -> None:
    candidate = Candidate("only")
    candidate.election.start()
    assert candidate.leads.wait(PATIENCE_S)
    leases.away = True
    assert candidate.lost.wait(PATIENCE_S)


def test_a_candidate_bears_an_api_that_is_away_and_leads_when_it_is_back(leases: Leases) -> None:
    leases.away = True
    candidate = Candidate("only")
    candidate.election.start()
    assert leases.asked.wait(PATIENCE_S)
    assert not candidate.leads.is_set()
    leases.away = False
    assert candidate.leads.wait(PATIENCE_S)
    candidate.election.release()
    assert not leases.holder


def test_who_does_not_hold_the_lease_does_not_give_it_back(leases: Leases) -> None:
    now = datetime.now(UTC)
    spec = V1LeaseSpec(holder_identity="other", lease_duration_seconds=60, acquire_time=now, renew_time=now)
    leases.lease = V1Lease(spec=spec)
    Candidate("mine").election.release()
    assert leases.holder == "other"


def test_leaving_while_the_api_is_away_is_no_error(leases: Leases) -> None:
    leases.away = True
    Candidate("mine").election.release()


def test_an_election_that_breaks_is_a_loss(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a date that cannot be parsed")

    monkeypatch.setattr(leases, "read_namespaced_lease", broken)
    candidate = Candidate("mine")
    candidate.election.start()
    assert candidate.lost.wait(PATIENCE_S)
