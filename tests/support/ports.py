"""TCP ports for servers that tests start."""

import socket
from contextlib import suppress

_kept: list[socket.socket] = []


def free_port() -> int:
    """Find a port of 127.0.0.1 that is free, and keep it for this process's life.

    A socket stays bound to it, so that neither another process nor an outgoing connection is given the port. It does
    not listen: a server that sets SO_REUSEADDR, as all of ours do, can.
    """
    return _keep(0)


def free_neighbours(count: int) -> range:
    """Find free ports that follow each other, and keep them as :func:`free_port` does."""
    while True:
        first = free_port()
        with suppress(OSError, OverflowError):  # a neighbour is in use, or the last port was reached
            return range(first, 1 + max([first, *(_keep(first + further) for further in range(1, count))]))


def _keep(port: int) -> int:
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        kept.bind(("127.0.0.1", port))
    except BaseException:
        kept.close()
        raise
    _kept.append(kept)
    found: int = kept.getsockname()[1]
    return found
