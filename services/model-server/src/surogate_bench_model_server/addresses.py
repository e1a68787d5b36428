"""Addresses in URLs."""

from surogate_bench.contract import EVERY_ADDRESS, LOOPBACK

_WILDCARDS = {EVERY_ADDRESS: LOOPBACK, "::": "::1"}  # compared with, not bound


def url_of(host: str, port: int) -> str:
    """URL of a server on this machine that listens on ``host``; no slash at the end."""
    return f"http://{bracketed(_WILDCARDS.get(host, host))}:{port}"


def bracketed(host: str) -> str:
    """Format a host for a URL: an IPv6 address in brackets, any other unchanged."""
    return f"[{host}]" if ":" in host else host
