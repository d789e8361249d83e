"""The life of an alert, as a pure function of readings: pending, firing, resolved. No store, no clock, no detector.

    quiet -> pending (out of the ordinary) -> firing (for_buckets in a row) -> resolved (keep_firing_buckets calm ones in a row)

A bucket without any news at all is neither calm nor out of the ordinary: silence raises nothing and clears nothing. The engine
(alerts.py) and the backtest (backtest.py) both run this and nothing else, which is why they agree.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fmcore.nouns import Reading, Rule

RAISED = {"low": "medium", "medium": "high", "high": "high"}
RAISE_FROM = 3.0
"""A surge this many times past both its expectation and its floor is one step more severe than its rule."""


@dataclass(frozen=True)
class Open:
    """What a rule holds open for one key. since: start of the first bucket of the run; until: end of the last one out of the ordinary.

    n_hot and n_calm count buckets in a row. value, expected, score, window_s and reason are those of the last bucket out of the ordinary.
    """

    key: str
    kind: str
    severity: str
    firing: bool
    since: dt.datetime
    until: dt.datetime
    n_hot: int
    n_calm: int
    value: float
    expected: float
    score: float
    window_s: int
    reason: str


@dataclass(frozen=True)
class Change:
    """One transition. what: "firing" or "resolved"; at: the end of the bucket that brought it; how it stood then."""

    what: str
    at: dt.datetime
    held: Open


def step(
    rule: Rule, held: Mapping[str, Open], bucket_at: dt.datetime, readings: Mapping[str, Reading], *, silent: bool = False
) -> tuple[dict[str, Open], list[Change]]:
    """One bucket further: what is open after it, and what changed, resolved first, then firing by size of the excess.

    readings are by name within the rule's dimension ("" for "all"); those that do not fire may be left out.
    """
    if silent:
        return dict(held), []
    end = bucket_at + dt.timedelta(seconds=rule.bucket_s)
    after: dict[str, Open] = {}
    ended: list[Change] = []
    begun: list[Change] = []
    for key in sorted(held.keys() | readings.keys()):
        reading, was = readings.get(key), held.get(key)
        hot = reading is not None and reading.fires and reading.kind in rule.kinds and (not rule.keys or key in rule.keys)
        if hot:
            now = _hotter(rule, key, was, reading, bucket_at, end)
            after[key] = now
            if now.firing and not (was and was.firing):
                begun.append(Change("firing", end, now))
        elif was is not None and was.firing:
            calmer = dataclasses.replace(was, n_hot=0, n_calm=was.n_calm + 1)
            if calmer.n_calm >= rule.keep_firing_buckets:
                ended.append(Change("resolved", end, calmer))
            else:
                after[key] = calmer
    begun.sort(key=lambda change: (-abs(change.held.value - change.held.expected), change.held.key))
    return after, ended + begun


def _hotter(rule: Rule, key: str, was: Open | None, reading: Reading, bucket_at: dt.datetime, end: dt.datetime) -> Open:
    n_hot = (was.n_hot if was else 0) + 1
    firing = (was.firing if was else False) or n_hot >= rule.for_buckets
    kind, severity = (was.kind, was.severity) if was and was.firing else (reading.kind, severity_of(rule, reading))
    since = was.since if was else bucket_at
    return Open(
        key, kind, severity, firing, since, end, n_hot, 0, reading.value, reading.expected, reading.score,
        reading.window_s or rule.bucket_s, reading.reason,
    )


def fingerprint(rule_id: str, dimension: str, key: str) -> str:
    """What an alert is about, whenever it fires."""
    return hashlib.blake2b("\x1f".join((rule_id, dimension, key)).encode(), digest_size=8).hexdigest()


def identity(rule: Rule, held: Open) -> tuple[str, str]:
    """(dimension, key) of an alert: a rule's own failing is about the rule."""
    return ("rule", rule.id) if held.kind == "error" else (rule.dimension, held.key)


def alert_id(print_of: str, since: dt.datetime) -> str:
    """One firing of a fingerprint: the same id at every evaluation of it, for ever."""
    return hashlib.blake2b(f"{print_of}\x1f{since.isoformat()}".encode(), digest_size=8).hexdigest()


def severity_of(rule: Rule, reading: Reading) -> str:
    """The rule's severity, one step up for a surge far beyond what was to be expected."""
    far = reading.kind == "surge" and reading.excess >= RAISE_FROM * max(reading.expected, rule.floor)
    return RAISED[rule.severity] if far else rule.severity


def to_plain(held: Mapping[str, Open]) -> dict[str, dict[str, Any]]:
    """What is open, for JSON."""
    return {key: vars(o) | {"since": o.since.isoformat(), "until": o.until.isoformat()} for key, o in held.items()}


def from_plain(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Open]:
    """What `to_plain` wrote."""
    times = ("since", "until")
    return {key: Open(**{**o, **{t: dt.datetime.fromisoformat(o[t]) for t in times}}) for key, o in plain.items()}
