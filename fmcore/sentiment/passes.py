"""The detector over the stored past: readings of any span, the same ones whoever asks and whenever.

The detector keeps no state on disk, so a span is replayed. Where a replay begins would show in its readings, so it begins at fixed
moments: time is cut into blocks, and every bucket of a block is read by a detector that started so many days before that block. The
engine, a backtest and a restarted desk therefore see equal readings on equal news.

A replay is kept in memory and goes on where it stood, as long as a checksum over the news behind it says that they are the same.
"""

from __future__ import annotations

import datetime as dt
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fmcore import clock
from fmcore.data import tickers
from fmcore.nouns import Reading, Rule
from fmcore.sentiment import counts as counting
from fmcore.sentiment.surge import Surge, SurgeSettings
from fmcore.store.store import Store

Detector = Callable[[SurgeSettings], Any]
SPANS = {300: (14, 7), 900: (14, 7), 3600: (28, 28), 6 * 3600: (84, 84), 86_400: (168, 168)}
"""Seconds a bucket -> (days the detector runs before a block, days of a block)."""
KEPT = 32
"""Replays kept in memory, a store: those used last."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Bucket:
    """One bucket as the detector read it: only keys that fire. silent: not one article of any kind came."""

    at: dt.datetime
    readings: dict[str, Reading]
    silent: bool


@dataclass
class _Replay:
    """One detector in one block: how far it is, what it read on the way, and the checksum of the news that it has seen."""

    detector: Any
    until: dt.datetime
    checksum: tuple[Any, ...] = ()
    buckets: list[Bucket] = field(default_factory=list)
    begun: bool = False
    watch: counting.Watch = field(default_factory=counting.Watch)


def settings_of(rule: Rule) -> SurgeSettings:
    """The detector of a rule. Persistence is counted by states.py, where it can be seen as "pending"."""
    return SurgeSettings(sensitivity=rule.sensitivity, floor=rule.floor, for_buckets=1, bucket_s=rule.bucket_s)


def readings(
    store: Store, settings: SurgeSettings, start: dt.datetime, end: dt.datetime, *, detector: Detector = Surge
) -> Iterator[Bucket]:
    """Every bucket that starts in start <= at < end, in order."""
    block = dt.timedelta(days=SPANS[settings.bucket_s][1])
    at = start
    while at < end:
        block_start = _EPOCH + ((at - _EPOCH) // block) * block
        until = min(end, block_start + block)
        for bucket in _block(store, settings, block_start, until, detector):
            if at <= bucket.at < until:
                yield bucket
        at = until


def of_dimension(rule: Rule, bucket: Bucket) -> dict[str, Reading]:
    """A bucket's readings that a rule looks at, by name without the dimension."""
    prefix = f"{rule.dimension}:"
    return {key.removeprefix(prefix): reading for key, reading in bucket.readings.items() if key.startswith(prefix)}


# --- replays in memory

_kept: weakref.WeakKeyDictionary[Store, OrderedDict[tuple, _Replay]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _block(store: Store, settings: SurgeSettings, block_start: dt.datetime, until: dt.datetime, detector: Detector) -> list[Bucket]:
    """The buckets of a block until a moment at least, read anew or from where an earlier replay of the same news stands."""
    first = block_start - dt.timedelta(days=SPANS[settings.bucket_s][0])
    with _lock:  # one at a time: a replay has no copy, and the processor is shared with the pages
        replays = _kept.setdefault(store, OrderedDict())
        key = (settings, block_start, detector)
        replay = replays.pop(key, None)
        if replay is None or replay.checksum != _checksum(store, first, replay.until):
            replay = _Replay(detector(settings), first)
        if replay.until < until:
            checksum = _checksum(store, first, until)  # before the news are read: what comes in between makes it wrong, not stale
            for bucket_at, counts in counting.counts(store, replay.until, until, bucket_s=settings.bucket_s, watch=replay.watch):
                silent = counts[counting.ALL].n_articles == 0
                replay.begun = replay.begun or not silent  # before the first article there is nothing to be learnt, not even silence
                found = replay.detector.update(bucket_at, counts) if replay.begun else {}
                if bucket_at >= block_start:
                    replay.buckets.append(Bucket(bucket_at, {key: r for key, r in found.items() if r.fires}, silent))
            replay.until, replay.checksum = until, checksum
        replays[key] = replay
        while len(replays) > KEPT:
            replays.popitem(last=False)
        return list(replay.buckets)


def _checksum(store: Store, start: dt.datetime, end: dt.datetime) -> tuple[Any, ...]:
    """What tells the counted news of a span from any other; the list of sectors has a part in the counts."""
    row = store.rows(
        """SELECT count(*) AS n, bit_xor(hash(document_id, published_at, source, tickers, topic, leads, sentiment, net)) AS sum
        FROM articles WHERE published_at >= ? AND published_at < ?""", clock.to_store(start), clock.to_store(end))[0]
    return row["n"], row["sum"], id(tickers.book())
