"""The detector over the stored past: readings of any span, the same ones whoever asks and whenever.

The detector keeps no state on disk, so a span is replayed. Where a replay begins would show in its readings, so it begins at fixed
moments: time is cut into blocks, and every bucket of a block is read by a detector that started WARM before that block. The engine,
a backtest and a restarted desk therefore see equal readings on equal counts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fmcore.nouns import Reading, Rule
from fmcore.sentiment import counts as counting
from fmcore.sentiment.surge import Surge, SurgeSettings
from fmcore.store.store import Store

Detector = Callable[[SurgeSettings], Any]
DAY = dt.timedelta(days=1)
SPANS = {300: (14, 7), 900: (14, 7), 3600: (28, 28), 6 * 3600: (84, 84), 86_400: (168, 168)}
"""Seconds a bucket -> (days the detector runs before a block, days of a block)."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Bucket:
    """One bucket as the detector read it: only keys that fire. silent: not one article of any kind came."""

    at: dt.datetime
    readings: dict[str, Reading]
    silent: bool


def settings_of(rule: Rule) -> SurgeSettings:
    """The detector of a rule. Persistence is counted by states.py, where it can be seen as "pending"."""
    return SurgeSettings(sensitivity=rule.sensitivity, floor=rule.floor, for_buckets=1, bucket_s=rule.bucket_s)


def readings(
    store: Store, settings: SurgeSettings, start: dt.datetime, end: dt.datetime, *, detector: Detector = Surge
) -> Iterator[Bucket]:
    """Every bucket that starts in start <= at < end, in order."""
    warm, block = (dt.timedelta(days=days) for days in SPANS[settings.bucket_s])
    at = start
    while at < end:
        block_start = _EPOCH + ((at - _EPOCH) // block) * block
        until = min(end, block_start + block)
        surge = detector(settings)
        for bucket_at, counts in counting.counts(store, block_start - warm, until, bucket_s=settings.bucket_s):
            found = surge.update(bucket_at, counts)
            if bucket_at >= at:
                fires = {key: reading for key, reading in found.items() if reading.fires}
                yield Bucket(bucket_at, fires, counts[counting.ALL].n_articles == 0)
        at = until


class Passes:
    """Readings shared by the rules of one evaluation: one pass of the detector for rules of equal settings."""

    def __init__(self, store: Store, *, detector: Detector = Surge):
        self._store, self._detector = store, detector
        self._known: dict[SurgeSettings, tuple[dt.datetime, dt.datetime, list[Bucket]]] = {}

    def over(self, rule: Rule, start: dt.datetime, end: dt.datetime) -> list[Bucket]:
        """The buckets of a rule from start until before end."""
        settings = settings_of(rule)
        have = self._known.get(settings)
        if have is None or start < have[0] or end > have[1]:
            low, high = (min(start, have[0]), max(end, have[1])) if have else (start, end)
            have = (low, high, list(readings(self._store, settings, low, high, detector=self._detector)))
            self._known[settings] = have
        return [bucket for bucket in have[2] if start <= bucket.at < end]


def of_dimension(rule: Rule, bucket: Bucket) -> dict[str, Reading]:
    """A bucket's readings that a rule looks at, by name without the dimension."""
    prefix = f"{rule.dimension}:"
    return {key.removeprefix(prefix): reading for key, reading in bucket.readings.items() if key.startswith(prefix)}
