"""Checks of the environment variables that the store's library reads: some invalid values make it panic."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from surogate_bench.contract import STORE_VARIABLES
from surogate_bench.errors import ConfigError
from surogate_bench.variables import require_address

_ADDRESSES = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_METADATA_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL",
)  # fmt: skip
_SECRETS = frozenset({
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_TOKEN", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET", "GOOGLE_SERVICE_ACCOUNT_KEY",
})  # fmt: skip
"""Their values are never shown."""
_SINGLE_TOKENS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY",
)  # fmt: skip
"""One token of printable ASCII: they become part of URLs and headers."""
_QUOTED = re.compile(r'"([^"]*)"')
_NOT_SET = {"Missing AccessKeyId": "AWS_ACCESS_KEY_ID", "Missing SecretAccessKey": "AWS_SECRET_ACCESS_KEY"}


def check_environment(scheme: str) -> None:
    """Check the variables that a store of this scheme is configured with.

    Raises:
        ConfigError: one has an invalid value.
    """
    for name in _ADDRESSES:
        if name.startswith(STORE_VARIABLES[scheme]) and (value := os.environ.get(name)):
            require_address(name, value, example="http://host:9000 or https://host")
    for name in _SINGLE_TOKENS:
        if name.startswith(STORE_VARIABLES[scheme]) and (value := os.environ.get(name)):
            _check_word(name, value)


@contextmanager
def without_empty_variables(scheme: str) -> Iterator[None]:
    """Unset empty variables, which the library would use as settings."""
    empty = [name for name, value in os.environ.items() if not value and name.startswith(STORE_VARIABLES[scheme])]
    for name in empty:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(dict.fromkeys(empty, ""))


def blamed_variable(scheme: str, complaint: str) -> ConfigError | None:
    """Find the variable that the library complains about without naming it; None if there is none."""
    for message, name in _NOT_SET.items():
        if message in complaint:
            return ConfigError(
                "is not set, but other variables with credentials are",
                field=name,
                remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY together, or neither.",
            )
    for value in _QUOTED.findall(complaint):
        names = sorted(n for n, v in os.environ.items() if v == value and n.startswith(STORE_VARIABLES[scheme]))
        if names:
            return ConfigError(
                _first_line(complaint),
                field=" or ".join(names),
                value=None if _SECRETS.intersection(names) else value,
                remedy="Correct or unset it.",
            )
    return None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rpartition("error: ")[2]


def _check_word(name: str, value: str) -> None:
    if re.fullmatch(r"[!-~]+", value):
        return
    around = value != value.strip()
    raise ConfigError(
        "begins or ends with a space or line break"
        if around
        else "contains a space, a control character or one that is not ASCII",
        field=name,
        value=None if name in _SECRETS else value,
        remedy="Remove it (`printf` instead of `echo` writes no line break)." if around else "Correct it.",
    )
