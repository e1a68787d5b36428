"""Environment variables that hold addresses or switches."""

import re
from urllib.parse import urlsplit

from surogate_bench.errors import ConfigError


def require_address(name: str, value: str, *, example: str) -> None:
    """Check that a variable holds an HTTP address.

    Args:
        name: The variable's.
        value: What it is set to.
        example: An address of the kind it should hold.

    Raises:
        ConfigError: it does not.
    """
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number or too large, brackets without an address
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", value) or "\\" in value:
        raise ConfigError(
            "is not an address",
            field=name,
            value=value,
            remedy=f"It must look like {example}: with http:// or https://, without blanks.",
        )


def is_on(value: str | None) -> bool:
    """Return whether a switch is on, as the Hugging Face libraries read it."""
    return (value or "").upper() in {"1", "ON", "YES", "TRUE"}
