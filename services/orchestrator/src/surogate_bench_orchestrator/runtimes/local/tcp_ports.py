"""Find free TCP ports for a server, which restarts on the same ones."""

import socket
import zlib
from collections.abc import Container

from surogate_bench.errors import TransientError

_FIRST, _LAST = 20000, 32000
"""Below the range of Linux's ephemeral ports, so that no outgoing connection takes a port between restarts."""


def free_ports(host: str, *, seed: str, taken: Container[int] = ()) -> tuple[int, int]:
    """Return two ports that nothing listens on; the search starts at a port that depends on ``seed``.

    Args:
        host: Address that the server will listen on.
        seed: Distinguishes the server from others on the machine.
        taken: Ports of servers that may not listen yet.

    Raises:
        TransientError: there are none.
    """
    found: list[int] = []
    start = zlib.crc32(seed.encode()) % (_LAST - _FIRST)
    for offset in range(_LAST - _FIRST):
        port = _FIRST + (start + offset) % (_LAST - _FIRST)
        if port not in taken and _is_free(host, port):
            found.append(port)
        if len(found) == 2:  # noqa: PLR2004 - a pair
            return found[0], found[1]
    raise TransientError(f"no two free ports between {_FIRST} and {_LAST} on {host}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
