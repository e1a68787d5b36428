"""Meaning and remedy of a store's errors.

S3 servers answer ``<Error><Code>…</Code><Message>…</Message></Error>``; the library includes that in its error's text.
The codes are those of the `S3 API reference <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>`_.
"""

import os
import re
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType

from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError

from surogate_bench.errors import ConfigError, StoreAwayError, StoreRefusedError

_CLOCK = ("this machine's clock differs too much from the store's", "Set the clock, for example with NTP.")
_KEY = ("the store does not know the access key", "Correct AWS_ACCESS_KEY_ID.")
_SECRET = ("the secret key does not belong to the access key", "Correct AWS_SECRET_ACCESS_KEY.")
_TOKEN = (
    "the session token has expired",
    "Get new credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) and run the command again.",
)
_BAD_TOKEN = ("the session token is not valid", "Correct AWS_SESSION_TOKEN, or unset it if the keys need none.")
_ROOM = ("the store has no room left", "Free some space or raise its quota.")
_RIGHTS = ("the credentials lack the right to do this", "Grant them to read, write, list and delete below this URL.")
_BUCKET = ("there is no such bucket", "Create the bucket, or correct the URL.")
_BUCKET_NAME = ("this is not a valid bucket name", "Correct the URL.")
_REGION = ("the bucket is in another region", "Set AWS_REGION to the bucket's region.")
_ACCOUNT = ("the account cannot be used", "Ask the store's operator.")
_UNSUPPORTED = ("the store does not support this request", "Use a store with conditional writes (If-None-Match).")
_REFUSALS = {
    "RequestTimeTooSkewed": _CLOCK, "RequestExpired": _CLOCK, "RequestInTheFuture": _CLOCK,
    "InvalidAccessKeyId": _KEY, "XAdminUserNotFound": _KEY, "SignatureDoesNotMatch": _SECRET,
    "ExpiredToken": _TOKEN, "TokenRefreshRequired": _TOKEN,
    "InvalidToken": _BAD_TOKEN,
    "QuotaExceeded": _ROOM, "StorageFull": _ROOM, "XMinioStorageFull": _ROOM, "XMinioAdminBucketQuotaExceeded": _ROOM,
    "InsufficientStorage": _ROOM, "NotEnoughSpace": _ROOM,
    "AccessDenied": _RIGHTS, "AllAccessDisabled": _RIGHTS, "AuthorizationPermissionMismatch": _RIGHTS,
    "NoSuchBucket": _BUCKET, "ContainerNotFound": _BUCKET, "InvalidBucketName": _BUCKET_NAME,
    "AuthorizationHeaderMalformed": _REGION, "PermanentRedirect": _REGION, "IllegalLocationConstraint": _REGION,
    "AccountProblem": _ACCOUNT, "InvalidPayer": _ACCOUNT, "UnauthorizedAccess": _ACCOUNT,
    "NotImplemented": _UNSUPPORTED, "MethodNotAllowed": _UNSUPPORTED,
}  # fmt: skip
_PASSING_CODES = frozenset({"RequestTimeout", "SlowDown", "ServiceUnavailable", "InternalError", "IncompleteBody"})
_BY_STATUS = {
    HTTPStatus.NOT_FOUND: (
        "the bucket or the access key does not exist",
        "Create the bucket, or correct the URL or the credentials.",
    ),
    HTTPStatus.UNAUTHORIZED: ("the store does not accept the credentials", "Correct them."),
    HTTPStatus.FORBIDDEN: ("the store denies access", "Check the credentials and their rights."),
    HTTPStatus.NOT_IMPLEMENTED: _UNSUPPORTED,
    HTTPStatus.INSUFFICIENT_STORAGE: _ROOM,
}
_PASSING_STATUS = frozenset({
    HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS,
})  # fmt: skip
_FOLDER = "Choose a folder that you may write, or correct its rights."
_BY_ERRNO = {
    1: _FOLDER, 13: _FOLDER, 17: _FOLDER, 20: _FOLDER, 21: _FOLDER, 30: _FOLDER, 40: _FOLDER,
    27: "Raise the limit on file sizes (ulimit -f).", 36: "Choose a folder with a shorter path.",
    28: "Free some space or choose another folder.", 122: "Free some space or choose another folder.",
}  # fmt: skip
_CHECK_AWAY = "Check the URL, that the store runs, and that the network lets requests through."

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*([^<\s]+)\s*</Code>")
_MESSAGE = re.compile(r"<Message>\s*([^<]+?)\s*</Message>")
_ERRNO = re.compile(r"\(os error (\d+)\)")
_CAUSES = (
    re.compile(r'(?:message|error): "([^"]+)"'),
    re.compile(r"(invalid peer certificate: [^\n]+|InvalidCertificate\([^)]*\))"),
)
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """The store's answer, as the library's error quotes it."""

    status: int | None
    code: str | None
    message: str | None

    def __str__(self) -> str:
        """Format the answer, such as ``403 Forbidden, AccessDenied: Access Denied.``."""
        try:
            status = f"{self.status} {HTTPStatus(self.status or 0).phrase}"
        except ValueError:
            status = str(self.status)
        named = ", ".join(part for part in (self.status and status, self.code) if part)
        return f"{named}: {self.message}" if self.message else named


def read_answer(error: BaseException) -> Answer:
    """Find status, code and message in an error's text."""
    text = str(error).partition("\n\nDebug source:")[0]
    status, code, message = _STATUS.search(text), _CODE.search(text), _MESSAGE.search(text)
    return Answer(
        status=int(status[1]) if status else None,
        code=code[1] if code else None,
        message=" ".join(message[1].split())[:_SHOWN] if message else None,
    )


def is_absence(error: BaseException) -> bool:
    """Return whether an error means that an object does not exist; False if the bucket or the access key is unknown."""
    return isinstance(error, (NotFoundError, FileNotFoundError)) and read_answer(error).code not in _REFUSALS


def translate(error: Exception, where: str) -> StoreRefusedError | StoreAwayError:
    """Convert the library's error: to StoreRefusedError if a retry cannot succeed, else to StoreAwayError."""
    answer = read_answer(error)
    if refusal := _refusal(error, answer):
        problem, remedy = refusal
        details = f" ({answer})" if str(answer) else ""
        return StoreRefusedError(where, problem + details, remedy)
    return StoreAwayError(where, why_away(error), _CHECK_AWAY)


def why_away(error: BaseException) -> str:
    """Return, on one line, why a store cannot do what was requested."""
    answer = read_answer(error)
    if answer.status is not None:
        return f"the store answers {answer}"
    text = str(error)
    if "TimedOut" in text:
        return "the store does not answer"
    for pattern in _CAUSES:
        if found := pattern.search(text):
            return found[1][:_SHOWN]
    if "InvalidContentType" in text:
        return "the store does not speak TLS: its address may have to begin with http://"
    return text.partition("\n")[0][:_SHOWN]


def _refusal(error: Exception, answer: Answer) -> tuple[str, str] | None:
    """Return problem and remedy; None if the failure may be transient."""
    if answer.status is not None:
        return _refusal_by_server(answer)
    if "Received redirect without LOCATION" in str(error):
        return _REGION
    found = _ERRNO.search(str(error))
    number = int(found[1]) if found else error.errno if isinstance(error, OSError) else None
    if number in _BY_ERRNO:
        return os.strerror(number), _BY_ERRNO[number]
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError, OSError)):
        return str(error).partition("\n")[0][:_SHOWN], _FOLDER
    return None


def _refusal_by_server(answer: Answer) -> tuple[str, str] | None:
    status, code = answer.status or 0, answer.code or ""
    if code in _PASSING_CODES:
        return None
    if code in _REFUSALS or status in _BY_STATUS:
        return _REFUSALS.get(code) or _BY_STATUS[HTTPStatus(status)]
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING_STATUS:
        return "the store refuses the request", "Check the URL and the store's settings."
    return None


def as_bad_input(error: StoreRefusedError | StoreAwayError, url: str) -> ConfigError:
    """Convert the error to a ConfigError about the setting, for commands that need the store."""
    if isinstance(error, StoreAwayError):
        return ConfigError(
            f"cannot be reached: {error.problem}",
            field="store",
            value=url,
            remedy="Check the URL, that its server runs, and the credentials (for s3://: AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and, where it is not Amazon's, AWS_ENDPOINT_URL).",
        )
    return ConfigError(f"cannot be used: {error.problem}", field="store", value=url, remedy=error.remedy)


class translated:  # noqa: N801 - a context manager that reads as a verb
    """Convert the library's errors into ours.

    An existing key becomes FileExistsError, and a missing one KeyError where it may be missing.

    Args:
        url: URL of the store.
        key: Key in the request.
        may_be_missing: Whether a missing key is a KeyError.
    """

    def __init__(self, url: str, key: str, *, may_be_missing: bool = False) -> None:
        self._where = f"{key!r} in {url}"
        self._may_be_missing = may_be_missing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        if self._may_be_missing and is_absence(error):
            raise KeyError(self._where) from error
        if isinstance(error, (AlreadyExistsError, FileExistsError)):
            raise FileExistsError(self._where) from error
        if isinstance(error, (BaseError, OSError)):
            raise translate(error, self._where) from error
        if type(error).__name__ == "PanicException":  # of pyo3; it cannot be imported
            raise StoreRefusedError(
                self._where, f"the store's library failed: {error}", "Check its settings."
            ) from error
