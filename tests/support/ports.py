"""TCP ports for servers that tests start."""

import socket

_kept: list[socket.socket] = []


def free_port() -> int:
    """Find a port of 127.0.0.1 that is free, and keep it for this process's life.

    A socket stays bound to it, so that neither another process nor an outgoing connection is given the port. It does
    not listen: a server that sets SO_REUSEADDR, as all of ours do, can.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    _kept.append(kept)
    port: int = kept.getsockname()[1]
    return port
