"""Logs: one JSON object a line, to a file in the runtime folder and to stderr; never a token.

It owns the format. It must not know what is logged.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
from pathlib import Path

FILE_BYTES = 4 << 20
FILES_KEPT = 2
SECRETS = frozenset({"token"})
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record and its extra fields as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and k not in SECRETS}
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "from": record.name.removeprefix("hdrgen_server."),
            "what": record.getMessage(),
            **extra,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def start_logging(path: Path | None, level: str) -> None:
    """Send this process's records to stderr, and to the file (0600, rotated) when there is one."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if path is not None:
        path.touch(mode=0o600)
        handlers.append(logging.handlers.RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT))
    for handler in handlers:
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)
