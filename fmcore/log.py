"""Logs: one JSON object a line, secrets redacted, user text never whole."""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
import traceback
from pathlib import Path

from fmcore.clock import now

_SECRET = re.compile(r"(?i)\b(authorization|token|password|secret|api[_-]?key|cookie)(\"?\s*[:=]\s*\"?)(bearer\s+)?[^\s\",;]+")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}|\bhf_[A-Za-z0-9]{8,}|\bsk-[A-Za-z0-9-]{8,}")
_USERINFO = re.compile(r"(?<=://)[^\s/@\"']+(?=@)")
_hidden: set[str] = set()


def hide(*secrets: str) -> None:
    """Never let these texts into the log, whatever stands around them. For credentials that look like nothing in particular."""
    _hidden.update(secret for secret in secrets if len(secret) >= 6)


def redact(line: str) -> str:
    """A log line without what was hidden, without credentials in addresses, and without the values of things that look like credentials."""
    for secret in sorted(_hidden, key=len, reverse=True):
        line = line.replace(secret, "****")
    return _BEARER.sub("****", _SECRET.sub(r"\1\2****", _USERINFO.sub("****", line)))


class JsonLines(logging.Formatter):
    """One JSON object a record: at, level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": now().isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage())[:4000],
        }
        if record.exc_info:
            line["error"] = redact("".join(traceback.format_exception(*record.exc_info)))[-8000:]
        return json.dumps(line, ensure_ascii=False)


def set_up(folder: Path | None, *, level: str = "INFO") -> None:
    """Send the desk's own log to stderr and, given a folder, to desk.log in it (5 MB, three old files kept)."""
    root = logging.getLogger("fm")
    root.setLevel(level)
    root.propagate = False
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handlers.append(logging.handlers.RotatingFileHandler(folder / "desk.log", maxBytes=5_000_000, backupCount=3, encoding="utf-8"))
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(JsonLines())
        root.addHandler(handler)
