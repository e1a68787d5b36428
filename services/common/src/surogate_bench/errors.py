"""The error tree, and the exit code that each branch ends a process with.

::

    BenchError
    ├── ConfigError              invalid input; correct it and start again                exit 2
    ├── TransientError           another attempt may succeed (network, a server restart)  exit 75
    │   └── StoreAwayError           the object store does not respond, or is overloaded
    ├── ProcessFailedError       a process of this service failed; ends as that one did
    └── PermanentError           would fail again in the same way                         exit 4
        ├── StoreRefusedError        the object store refuses: permissions, credentials, space
        ├── ForeignTrainerError      a foreign trainer failed, or left no usable adapter
        └── UnsupportedRecipeError   this machine cannot run the requested recipe            exit 3

Exit codes are a contract with job runtimes: 2, 3 and 4 are never retried, 75 (``EX_TEMPFAIL``) always may be, and 1 is
a crash that another attempt may avoid (:func:`surogate_bench.processes.service.run_service` lists the errors that are
permanent).
The command line exits with 1 for every failure that is not bad input.
"""

from enum import IntEnum

_SHOWN_CHARACTERS = 300


class ExitCode(IntEnum):
    """Process exit codes of every service and of the command line."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    UNSUPPORTED = 3
    PERMANENT = 4
    TRANSIENT = 75
    INTERRUPTED = 130


FINAL_EXIT_CODES = frozenset({ExitCode.BAD_INPUT, ExitCode.UNSUPPORTED, ExitCode.PERMANENT})
"""Codes of failures that would happen again: no runtime retries them."""


class BenchError(Exception):
    """Base class of every error that surogate-bench raises."""

    exit_code: ExitCode = ExitCode.FAILED

    @property
    def reason(self) -> str:
        """Name of the failure for machines, in CamelCase: that of its class."""
        return type(self).__name__


class ConfigError(BenchError):
    """Bad input: names the field, the value found there and what to do about it.

    Args:
        message: What is wrong, as a sentence.
        field: Path of the setting, for example ``training.learning_rate`` or ``data.train:17`` (a file's line).
        value: The invalid value; omitted from the message if None.
        remedy: What the user should do.
    """

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, message: str, *, field: str, value: object = None, remedy: str) -> None:
        self.problem = message
        self.field = field
        self.value = value
        self.remedy = remedy
        shown = "" if value is None else f" (got {shorten(repr(value))})"
        super().__init__(f"{_in_a_line(field)}: {printable(message.rstrip('.'))}{shown}. {remedy}")


class TransientError(BenchError):
    """An external failure that may be transient."""

    exit_code = ExitCode.TRANSIENT


class PermanentError(BenchError):
    """A failure that another attempt cannot resolve."""

    exit_code = ExitCode.PERMANENT


class ProcessFailedError(BenchError):
    """One of the processes that a service has started failed, and the service fails as it did.

    Args:
        message: Which process, and why.
        reason: Reason of that process.
        exit_code: What this process is to end with.
    """

    def __init__(self, message: str, *, reason: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self._reason = reason
        self.exit_code = exit_code

    @property
    def reason(self) -> str:
        """Reason of the process that failed."""
        return self._reason


class StoreAwayError(TransientError):
    """The object store does not respond, or cannot serve the request now.

    Args:
        where: Key and store.
        problem: What is wrong, as a clause.
        remedy: What the user can check.
    """

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{where}: {problem}")


class StoreRefusedError(PermanentError):
    """The object store refuses the request permanently.

    Args:
        where: Key and store.
        problem: What is wrong, as a clause, with the store's own code and message.
        remedy: What the user should do.
    """

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{where}: {problem.rstrip('.')}. {remedy}")


class ForeignTrainerError(PermanentError):
    """A foreign trainer failed, or left no adapter that can be served.

    Args:
        problem: What is wrong, as a sentence.
        last_lines: The last lines that it wrote, empty if there are none; None if they are not known here.
    """

    def __init__(self, problem: str, last_lines: str | None = "") -> None:
        super().__init__(f"{problem.rstrip('.')}." if last_lines is None else with_output(problem, last_lines))


class UnsupportedRecipeError(PermanentError):
    """The recipe cannot run here with the requested engine; there is no silent fallback."""

    exit_code = ExitCode.UNSUPPORTED


def with_output(problem: str, last_lines: str) -> str:
    """Add to a problem of a command the last lines that it wrote, or that it wrote nothing."""
    ending = f"The last lines of its output:\n{last_lines}" if last_lines else "It wrote nothing."
    return f"{problem.rstrip('.')}.\n{ending}"


def shorten(text: str, limit: int = _SHOWN_CHARACTERS) -> str:
    """Shorten a long text by cutting out its middle."""
    if len(text) <= limit:
        return text
    half = (limit - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def _in_a_line(text: str) -> str:
    return shorten(printable(text).replace("\n", "\\n"))


def printable(text: str) -> str:
    """Escape characters that a terminal or an encoding cannot show, except line breaks."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)
