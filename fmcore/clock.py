"""Time, in one place: aware UTC inside the program, naive UTC inside DuckDB.

DuckDB needs pytz to hand TIMESTAMPTZ back to Python, so the store keeps naive UTC and this module is the only border.
"""

from __future__ import annotations

import datetime as dt

UTC = dt.UTC


def now() -> dt.datetime:
    """The present moment, aware, in UTC."""
    return dt.datetime.now(UTC)


def to_store(moment: dt.datetime | None) -> dt.datetime | None:
    """An aware datetime as the naive UTC that the store keeps. Raises ValueError on a naive one: its zone is a guess."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; make it aware first")
    return moment.astimezone(UTC).replace(tzinfo=None)


def from_store(moment: dt.datetime | None) -> dt.datetime | None:
    """A naive UTC datetime out of the store, made aware."""
    return None if moment is None else moment.replace(tzinfo=UTC)


def ago(moment: dt.datetime | None, *, at: dt.datetime | None = None) -> str:
    """How long before `at` (default: now) a moment was, in words: "just now", "4 min ago", "in 2 h"."""
    if moment is None:
        return "never"
    seconds = ((at or now()) - moment).total_seconds()
    words = duration(abs(seconds))
    if abs(seconds) < 5:
        return "just now"
    return f"{words} ago" if seconds > 0 else f"in {words}"


def duration(seconds: float) -> str:
    """A span in words with its unit: "0.4 s", "38 s", "6 min 20 s", "3 h 5 min", "12 d"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {s} s" if s and minutes < 15 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"
