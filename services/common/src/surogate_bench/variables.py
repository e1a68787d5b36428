"""Checks of environment variables that hold addresses or booleans."""

import re
from urllib.parse import urlsplit

from surogate_bench.errors import ConfigError


def require_address(name: str, value: str, *, example: str) -> None:
    """Check that a variable holds an HTTP address.

    Args:
        name: Name of the variable.
        value: Its value.
        example: A valid address, for the message.

    Raises:
        ConfigError: it does not.
    """
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number or too large, brackets without an address
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", value) or "\\" in value:
        raise ConfigError(
            "is not an address",
            field=name,
            value=value,
            remedy=f"It must have the form {example}: with http:// or https://, without spaces.",
        )


def is_on(value: str | None) -> bool:
    """Return whether a boolean variable is true, as the Hugging Face libraries interpret it."""
    return (value or "").upper() in {"1", "ON", "YES", "TRUE"}
