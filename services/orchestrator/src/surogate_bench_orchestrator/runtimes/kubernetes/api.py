"""A client of the Kubernetes API for plain dictionaries: every call has a deadline, and raises a BenchError."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from kubernetes.client import ApiClient, ApiException

from surogate_bench.errors import PermanentError, TransientError

Object = dict[str, Any]

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
_NOT_FOUND, _CONFLICT, _TOO_MANY, _TIMEOUT, _SERVER_ERROR = 404, 409, 429, 408, 500
_APPLY, _MERGE, _JSON = "application/apply-patch+yaml", "application/merge-patch+json", "application/json"


class Api:
    """Requests to the API server.

    Every method raises TransientError if the server is unreachable or asks to retry, and PermanentError if it refuses.

    Args:
        client: Connection.
        count: Called with the method of every request that is sent.
    """

    def __init__(self, client: ApiClient, count: Callable[[str], None] = lambda _: None) -> None:
        self.client = client
        self._count = count

    def get(self, path: str) -> Object | None:
        """Read an object; None if there is none."""
        return self._call("GET", path, absent_ok=True)

    def list(self, path: str, **query: str) -> list[Object]:
        """List objects, following pages."""
        items: list[Object] = []
        page: dict[str, str] = {"limit": "500"}
        while True:
            answer = self._call("GET", path, query={**query, **page}) or {}
            items += answer.get("items") or []
            token = (answer.get("metadata") or {}).get("continue")
            if not token:
                return items
            page["continue"] = token

    def text(self, path: str, **query: str) -> str:
        """Read text, such as a log; empty if there is none."""
        raw = self._request("GET", path, query=query, absent_ok=True)
        return "" if raw is None else raw.decode(errors="replace")

    def create(self, path: str, body: Object) -> bool:
        """Create an object; False if one of that name exists."""
        try:
            self._call("POST", path, body=body)
        except AlreadyExistsError:
            return False
        return True

    def apply(self, path: str, body: Object, *, manager: str, force: bool = True) -> Object:
        """Server-side apply; return the resulting object."""
        query = {"fieldManager": manager, "force": str(force).lower()}
        return self._call("PATCH", path, body=body, query=query, content_type=_APPLY) or {}

    def patch(self, path: str, body: Object) -> Object | None:
        """Merge-patch an object; None if there is none."""
        return self._call("PATCH", path, body=body, content_type=_MERGE, absent_ok=True)

    def delete(self, path: str, *, propagation: str = "Background") -> None:
        """Delete an object; does nothing if there is none."""
        self._call("DELETE", path, body={"propagationPolicy": propagation}, absent_ok=True)

    def _call(self, method: str, path: str, **options: Any) -> Object | None:  # noqa: ANN401 - see _request
        raw = self._request(method, path, **options)
        return None if raw is None else json.loads(raw)

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
        absent_ok: bool = False,
    ) -> bytes | None:
        try:
            return self._send(method, path, body=body, query=query, content_type=content_type)
        except ApiException as error:
            if error.status == _NOT_FOUND and absent_ok:
                return None
            raise translate(error, f"{method} {path}") from error
        except urllib3.exceptions.HTTPError as error:
            raise TransientError(f"the Kubernetes API is unreachable: {method} {path}: {error}") from error

    def _send(
        self, method: str, path: str, *, body: Object | None, query: Mapping[str, str] | None, content_type: str
    ) -> bytes:
        headers = {"Accept": _JSON, "Content-Type": content_type}
        request = self.client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        self._count(method)
        answer = self.client.call_api(*request, _request_timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S))
        data = bytes(answer.read())
        if not 200 <= answer.status <= 299:  # noqa: PLR2004 - HTTP success
            raise ApiException(status=answer.status, reason=answer.reason, body=data.decode(errors="replace"))
        return data


class AlreadyExistsError(TransientError):
    """There is an object of that name."""


class ConflictError(TransientError):
    """Another client changed the object meanwhile, or owns the field."""


def translate(error: ApiException, what: str) -> TransientError | PermanentError:
    """Convert an error of the API, with its message."""
    status = int(error.status or 0)
    reason, message = _explain(error)
    text = f"{what}: {message}"
    if status == _CONFLICT:
        return AlreadyExistsError(text) if reason == "AlreadyExists" else ConflictError(text)
    if status in {0, _TIMEOUT, _TOO_MANY} or status >= _SERVER_ERROR:
        return TransientError(text)
    return PermanentError(text)


def _explain(error: ApiException) -> tuple[str, str]:
    try:
        status = json.loads(error.body)
        return str(status.get("reason", "")), str(status.get("message", error.reason))
    except (TypeError, ValueError, AttributeError):
        return "", str(error.reason or error)
