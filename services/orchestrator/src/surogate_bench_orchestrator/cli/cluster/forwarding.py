"""HTTP to a pod's port through the API server, so that neither a Service's address nor a NetworkPolicy matters."""

import http.client
import json
from http import HTTPStatus

from kubernetes.client import ApiClient, ApiException, CoreV1Api
from kubernetes.stream import portforward

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench_orchestrator.adapters.kubernetes.api import translate

_TIMEOUT_S = 60.0
_LONGEST = 512 * 1024**2
"""Bytes that an answer may have."""


def get_from_pod(client: ApiClient, *, namespace: str, pod: str, port: int, path: str) -> bytes:
    """GET a path from a pod.

    Raises:
        TransientError: the pod or the way to it is away, or it asks to come back later.
        PermanentError: it answers that there is no such thing.
    """
    what = f"GET {path} from pod {pod}"
    try:
        forward = portforward(CoreV1Api(client).connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
    except ApiException as error:
        raise translate(error, what) from error
    except OSError as error:
        raise TransientError(f"{what}: {error}") from error
    connection = http.client.HTTPConnection("localhost", port)
    try:
        connection.sock = forward.socket(port)
        connection.sock.settimeout(_TIMEOUT_S)
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(_LONGEST)
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"{what}: {forward.error(port) or error}") from error
    finally:
        connection.close()
        forward.close()
    if answer.status == HTTPStatus.OK:
        return body
    message = f"{what}: {answer.status} {_explanation(body) or answer.reason}"
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise TransientError(message)
    raise PermanentError(message)


def _explanation(body: bytes) -> str:
    text = body[:2000].decode(errors="replace").strip()
    try:
        document = json.loads(text)
    except ValueError:
        return text
    return str(document.get("message", text)) if isinstance(document, dict) else text
