"""Dates as sources write them, into aware UTC; what cannot be placed on the time line without a guess is refused.

RFC 2822 (RSS) and ISO 8601 (Atom, CSV) with an offset are exact. A zone's abbreviation counts where it says which offset holds: those
of RFC 822, and European ones at a moment when that zone really goes by that name. A time without a zone needs the zone that a person
named for the source. Owns no table and no clock.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import functools
import re
import zoneinfo

from fmcore import clock
from fmcore.nouns import FMError

EARLIEST = dt.datetime(1990, 1, 1, tzinfo=clock.UTC)
"""Nothing here is older; feeds that lost their dates say 1970."""
AHEAD = dt.timedelta(minutes=10)
"""How far a source's clock may run ahead of ours."""

UNREADABLE, NO_ZONE, NOT_A_TIME, FUTURE, ANCIENT = (
    "date not understood",
    "date without a time zone",
    "a time that its zone did not have, or had twice",
    "date in the future",
    "date before 1990",
)
_ABBREVIATION = re.compile(r"\s([A-Z]{2,5})$")
_PLACES = {
    "WET": "Europe/Lisbon", "WEST": "Europe/Lisbon", "BST": "Europe/London", "CET": "Europe/Berlin", "CEST": "Europe/Berlin",
    "EET": "Europe/Helsinki", "EEST": "Europe/Helsinki", "MSK": "Europe/Moscow",
}  # fmt: skip
_SPACED = re.compile(r"^(\d{4}-\d\d-\d\d)\s+(\d\d:\d\d(?::\d\d)?(?:\.\d+)?)\s*(Z|UTC|GMT|[+-]\d\d:?\d\d)$")


class BadDate(FMError):
    """A date that is refused; `message` is the reason as it is counted."""


def place(published: str | dt.datetime, *, seen_at: dt.datetime, zone: str | None = None) -> dt.datetime:
    """When an item was published: aware UTC, at most seen_at (a source whose clock runs ahead a little is set back).

    zone: the IANA name of the zone that a person says the source's times without one are in. Raises BadDate.
    """
    moment = published if isinstance(published, dt.datetime) else _read(published)
    if moment != moment:  # pandas' NaT calls itself a datetime
        raise BadDate(UNREADABLE)
    if moment.tzinfo is None:
        if zone is None:
            raise BadDate(NO_ZONE)
        moment = in_zone(moment, zone)
    try:
        moment = moment.astimezone(clock.UTC)
    except OverflowError:
        raise BadDate(ANCIENT if moment.year < 5000 else FUTURE) from None
    if moment > seen_at + AHEAD:
        raise BadDate(FUTURE)
    if moment < EARLIEST:
        raise BadDate(ANCIENT)
    return min(moment, seen_at)


def in_zone(moment: dt.datetime, zone: str) -> dt.datetime:
    """A naive time made aware in a zone. Raises BadDate for an hour that the zone skipped or repeated, or a zone that is none."""
    try:
        there = _zone(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise BadDate(NO_ZONE) from None
    early, late = moment.replace(tzinfo=there, fold=0), moment.replace(tzinfo=there, fold=1)
    try:
        if early.utcoffset() != late.utcoffset():
            raise BadDate(NOT_A_TIME)
    except OverflowError:
        raise BadDate(UNREADABLE) from None
    return early


@functools.lru_cache(maxsize=64)
def _zone(name: str) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(name)


def _read(written: object) -> dt.datetime:
    """A written date, aware where it says its zone. Raises BadDate."""
    if not isinstance(written, str) or len(written) > 80:
        raise BadDate(UNREADABLE)
    written = " ".join(written.split())
    spaced = _SPACED.match(written)
    if spaced:
        offset = "+00:00" if spaced[3].isalpha() else spaced[3]
        written = f"{spaced[1]}T{spaced[2]}{offset}"
    with contextlib.suppress(ValueError):  # not ISO 8601: then it is RFC 2822 or nothing
        return dt.datetime.fromisoformat(written)
    named = _ABBREVIATION.search(written)
    name = named[1] if named and named[1] not in ("AM", "PM") else ""
    try:
        bare = written[: named.start()] if name in _PLACES else written
        moment = dt.datetime.fromisoformat(bare) if bare[:4].isdecimal() else email.utils.parsedate_to_datetime(bare)
    except (ValueError, IndexError, OverflowError, TypeError):
        raise BadDate(UNREADABLE) from None
    if name in _PLACES:
        return _by_name(moment, name)
    if written.endswith(" -0000"):  # RFC 5322: a time in UTC, from a machine that does not say where it stands
        return moment.replace(tzinfo=clock.UTC)
    return moment


def _by_name(moment: dt.datetime, name: str) -> dt.datetime:
    """A local time whose zone is said by an abbreviation that holds at that time. Raises BadDate where it does not."""
    there = _zone(_PLACES[name])
    for fold in (0, 1):
        placed = moment.replace(tzinfo=there, fold=fold)
        exists = placed.astimezone(clock.UTC).astimezone(there).replace(tzinfo=None) == moment.replace(tzinfo=None)
        if exists and placed.tzname() == name:
            return placed
    raise BadDate(NOT_A_TIME)
