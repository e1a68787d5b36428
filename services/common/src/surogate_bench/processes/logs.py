"""Structured logs: one JSON object per line on standard error, with secrets removed."""

import json
import logging
import re
import sys
from datetime import UTC, datetime

_SECRET = re.compile(r"(?i)\b(hf_[a-z0-9]{8,}|AKIA[0-9A-Z]{12,}|(?:api[-_ ]?key|token|secret|password)\s*[=:]\s*\S+)")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """Replace possible credentials."""
    return _SECRET.sub("[redacted]", text)


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON; keys of ``extra=`` become fields."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        fields |= {
            key: redact(value) if isinstance(value, str) else value
            for key, value in record.__dict__.items()
            if key not in _STANDARD
        }
        if record.exc_info:
            fields["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False, default=str)


def take_over_logs(*libraries: str) -> None:
    """Remove handlers that libraries have installed; otherwise their messages would be logged twice."""
    for library in libraries:
        logging.getLogger(library).handlers.clear()


def configure_logging(service: str) -> None:
    """Send the process's log to standard error, at level INFO."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "httpx2", "httpcore", "urllib3", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
