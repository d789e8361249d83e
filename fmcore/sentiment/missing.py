"""What does not come: feeds that are dead, and a stream in which nothing comes at all. Reads the log of looks and the articles.

Silence is compared with the longest silences that are usual (the second longest of four weeks: one outage teaches nothing), so that a
night or a week-end without news is no alarm, and a feed that spoke every minute is missed after three intervals.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass

from fmcore import clock
from fmcore.data.sources import Source, Sources
from fmcore.nouns import Rule
from fmcore.store.store import Store

INTERVALS = 3
SLACK = 1.25
"""Silence is unusual from this many times the usual longest one."""
HISTORY = dt.timedelta(days=28)
FEW_LOOKS = 5
UNKNOWN_USUAL = dt.timedelta(hours=24)
"""What counts as the usual longest silence of a feed that brought something fewer than FEW_LOOKS times."""
WATCHED_KINDS = ("rss", "push", "demo")
"""An upload and a replay come to an end, prices rest; their silence is no fault."""


@dataclass(frozen=True)
class Finding:
    """Something that does not come: since when, and in words. value and expected are hours of silence, so far and at most usual."""

    key: str
    kind: str
    since: dt.datetime
    value: float
    expected: float
    reason: str


def findings(store: Store, rule: Rule, now: dt.datetime) -> list[Finding]:
    """All that is missing at a moment, of the kinds that the rule looks at."""
    interval = dt.timedelta(seconds=rule.bucket_s)
    found: list[Finding] = []
    if "no data" in rule.kinds:
        found += _silent_stream(store, interval, now)
    if "dead feed" in rule.kinds:
        watched = [s for s in Sources(store).all() if s.state == "on" and s.kind in WATCHED_KINDS]
        found += [f for source in watched for f in _dead_feed(store, source, interval, now)]
    return [f for f in found if not rule.keys or f.key in rule.keys]


def _silent_stream(store: Store, interval: dt.timedelta, now: dt.datetime) -> list[Finding]:
    sql = """SELECT DISTINCT time_bucket(to_seconds(?), published_at, TIMESTAMP '1970-01-01') AS bucket FROM articles
        WHERE published_at >= ? AND published_at <= ? ORDER BY bucket"""
    rows = store.rows(sql, int(interval.total_seconds()), clock.to_store(now - HISTORY), clock.to_store(now))
    spoke = [clock.from_store(row["bucket"]) + interval for row in rows]  # the ends of the buckets in which something came
    if not spoke:
        return []  # a desk without news yet, or one that is used for history only
    usual = _usual([later - earlier - interval for earlier, later in itertools.pairwise(spoke)], dt.timedelta(0))
    silent = now - spoke[-1]
    if silent < INTERVALS * interval or silent <= SLACK * usual:
        return []
    waiting = store.rows("SELECT count(*) AS n FROM documents WHERE seen_at > ?", clock.to_store(spoke[-1]))[0]["n"]
    behind = f" {waiting:,} documents have come since and wait to be scored." if waiting else ""
    reason = (
        f"No scored news at all since {spoke[-1]:%d %b %H:%M} UTC, {clock.duration(silent.total_seconds())}; "
        f"the longest usual silence is {clock.duration(usual.total_seconds())}.{behind} Nothing can be said of alerts meanwhile."
    )
    return [Finding("", "no data", spoke[-1], _hours(silent), _hours(usual), reason)]


def _dead_feed(store: Store, source: Source, interval: dt.timedelta, now: dt.datetime) -> list[Finding]:
    """A feed whose looks fail, or bring nothing for longer than is usual. Before it was added (again) or resumed, nothing counts."""
    name = source.name
    sql = """SELECT checked_at, ok, n_new, error FROM source_checks
        WHERE source = ? AND checked_at >= ? AND checked_at <= ? ORDER BY checked_at"""
    looks = store.rows(sql, name, clock.to_store(max(now - HISTORY, source.changed_at)), clock.to_store(now))
    if not looks:
        return []
    failed = 0
    while failed < len(looks) and not looks[-1 - failed]["ok"]:
        failed += 1
    if failed >= INTERVALS:
        since = clock.from_store(looks[-failed]["checked_at"])
        said = " ".join(looks[-1]["error"].split())[:200] or "no reason given"
        reason = f"The last {failed} looks at {name} failed, since {since:%d %b %H:%M} UTC: {said}."
        return [Finding(name, "dead feed", since, _hours(now - since), 0.0, reason)]
    brought = [clock.from_store(row["checked_at"]) for row in looks if row["n_new"] > 0]
    last = brought[-1] if brought else clock.from_store(looks[0]["checked_at"])
    gaps = [later - earlier for earlier, later in itertools.pairwise(brought)]
    usual = _usual(gaps, UNKNOWN_USUAL) if len(brought) >= FEW_LOOKS else UNKNOWN_USUAL
    until = now if source.kind == "push" else clock.from_store(looks[-1]["checked_at"])
    silent = until - last  # where nobody looked, or the clock stepped, a feed has not been silent
    if silent < INTERVALS * interval or silent <= SLACK * usual:
        return []
    reason = (
        f"{name} has brought nothing new since {last:%d %b %H:%M} UTC, {clock.duration(silent.total_seconds())}; "
        f"the longest usual silence is {clock.duration(usual.total_seconds())}."
    )
    return [Finding(name, "dead feed", last, _hours(silent), _hours(usual), reason)]


def _usual(gaps: list[dt.timedelta], unknown: dt.timedelta) -> dt.timedelta:
    """The second longest gap; one long outage is not what is usual."""
    longest = sorted(gaps)[-2:]
    return longest[0] if len(longest) == 2 else unknown


def _hours(span: dt.timedelta) -> float:
    return round(span.total_seconds() / 3600, 3)
