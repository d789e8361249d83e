"""The news of each bucket, counted by what an alert can be about: all of it, a sector, a topic, a ticker.

A story counts once, in the bucket, for the topic and for the tickers of its leading article, and it is a negative story when that
article's label is negative; articles count each. Reads `articles` alone, so that late and re-scored news change the counts of the past.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fmcore import clock
from fmcore.data.tickers import UNKNOWN_SECTOR, book
from fmcore.nouns import Counts
from fmcore.store.store import Store

ALL = "all:"
NET_UNIT = 10_000
NOTHING = Counts(0, 0, 0, 0.0)
WATCH_FROM = 3
"""Articles that a key must have had before it is watched: a name that came up once is no series."""
MAX_KEYS = 1_000
AT_ONCE = dt.timedelta(days=7)
"""So much is counted in one query: what bounds the memory. A whole number of buckets of any length."""

_SQL = """
WITH sectors AS (SELECT unnest(?::VARCHAR[]) AS ticker, unnest(?::VARCHAR[]) AS sector),
seen AS (
    SELECT time_bucket(to_seconds(?), published_at, TIMESTAMP '1970-01-01') AS bucket, source, topic, list_distinct(tickers) AS tickers,
        leads, leads AND sentiment = 'negative' AS negative, net, document_id
    FROM articles WHERE published_at >= ? AND published_at < ?),
of_ticker AS (SELECT seen.* EXCLUDE (tickers), t.ticker FROM seen, unnest(tickers) AS t(ticker)),
keyed AS (
    SELECT bucket, 'all:' AS key, source, leads, negative, net FROM seen
    UNION ALL SELECT bucket, 'topic:' || topic, source, leads, negative, net FROM seen WHERE topic NOT IN ('', 'unknown')
    UNION ALL SELECT bucket, 'ticker:' || ticker, source, leads, negative, net FROM of_ticker WHERE ticker <> ''
    UNION ALL SELECT DISTINCT ON (document_id, sector) bucket, 'sector:' || sector, source, leads, negative, net
        FROM of_ticker JOIN sectors USING (ticker))
SELECT bucket, key, count(*) FILTER (WHERE negative) AS n_negative, count(*) FILTER (WHERE leads) AS n_stories, count(*) AS n_articles,
    coalesce(sum(net) FILTER (WHERE leads), 0)::BIGINT AS net, histogram(source) FILTER (WHERE negative) AS by_source
FROM keyed GROUP BY bucket, key ORDER BY bucket, key
"""


def floor_to(moment: dt.datetime, bucket_s: int) -> dt.datetime:
    """The start of the bucket that holds a moment; buckets are counted in UTC from 1970, whatever the wall clock does."""
    seconds = int(moment.timestamp() // 1)
    return dt.datetime.fromtimestamp(seconds - seconds % bucket_s, clock.UTC)


@dataclass
class Watch:
    """The keys that are watched, and how many articles each has had: what a count that goes on later has to know."""

    keys: dict[str, None] = field(default_factory=lambda: {ALL: None})
    n_articles: dict[str, int] = field(default_factory=dict)

    def note(self, key: str, n_articles: int) -> None:
        """Articles of a key have come; from WATCH_FROM of them on it is watched."""
        self.n_articles[key] = self.n_articles.get(key, 0) + n_articles
        if self.n_articles[key] >= WATCH_FROM and len(self.keys) < MAX_KEYS:
            self.keys[key] = None


def counts(
    store: Store, start: dt.datetime, end: dt.datetime, *, bucket_s: int, watch: Watch | None = None
) -> Iterator[tuple[dt.datetime, dict[str, Counts]]]:
    """Every bucket from start (rounded down) until before end, silent ones too: (its start, counts by key).

    A key is a dimension and a name ("all:", "sector:Banks", "topic:Fraud", "ticker:ABC"). It is left out until it has had
    WATCH_FROM articles since start, and there are MAX_KEYS of them at most, in the order of their coming; after that it is in every
    bucket, with zeros when nothing came. "all:" is in every bucket. watch: that of a count that ended at start, to go on with.
    """
    at, step, sectors = floor_to(start, bucket_s), dt.timedelta(seconds=bucket_s), _sectors(store, start, end)
    watch = watch or Watch()
    while at < end:
        until = min(end, at + AT_ONCE)
        rows = store.rows(_SQL, *sectors, bucket_s, clock.to_store(at), clock.to_store(until))
        by_bucket = {bucket: list(of) for bucket, of in itertools.groupby(rows, key=lambda row: row["bucket"])}
        while at < until:
            found = {row["key"]: row for row in by_bucket.get(clock.to_store(at), ())}
            for key, row in found.items():
                watch.note(key, row["n_articles"])
            yield at, {key: _counts(found[key]) if key in found else NOTHING for key in watch.keys}
            at += step


def _counts(row: Mapping[str, Any]) -> Counts:
    by_source = {str(source): int(n) for source, n in (row["by_source"] or {}).items()}
    return Counts(row["n_negative"], row["n_stories"], row["n_articles"], row["net"] / NET_UNIT, by_source)


def newest(store: Store, *, before: dt.datetime) -> dt.datetime | None:
    """When the newest scored article published before a moment was published; None when there is none."""
    row = store.rows("SELECT max(published_at) AS at FROM articles WHERE published_at < ?", clock.to_store(before))
    return clock.from_store(row[0]["at"])


def oldest(store: Store, *, since: dt.datetime) -> dt.datetime | None:
    """When the oldest scored article published at or after a moment was published; None when there is none."""
    row = store.rows("SELECT min(published_at) AS at FROM articles WHERE published_at >= ?", clock.to_store(since))
    return clock.from_store(row[0]["at"])


def first_incomplete(
    store: Store, start: dt.datetime, end: dt.datetime, *, bucket_s: int, share: float, seen_since: dt.datetime
) -> dt.datetime | None:
    """The first bucket of which more than that share of the documents still waits to be scored; None when all are complete.

    Documents seen before seen_since wait no longer: what could not be scored for so long must not hold up the rest.
    """
    sql = """SELECT time_bucket(to_seconds(?), d.published_at, TIMESTAMP '1970-01-01') AS bucket
        FROM documents d LEFT JOIN articles a ON a.document_id = d.id AND a.published_at = d.published_at
        WHERE d.published_at >= ? AND d.published_at < ?
        GROUP BY bucket HAVING count(*) FILTER (WHERE a.document_id IS NULL AND d.seen_at >= ?) > ? * count(*) ORDER BY bucket LIMIT 1"""
    rows = store.rows(sql, bucket_s, clock.to_store(start), clock.to_store(end), clock.to_store(seen_since), share)
    return clock.from_store(rows[0]["bucket"]) if rows else None


def _sectors(store: Store, start: dt.datetime, end: dt.datetime) -> tuple[list[str], list[str]]:
    """The tickers of a span whose sector is known, and their sectors, side by side."""
    sql = "SELECT DISTINCT unnest(tickers) AS ticker FROM articles WHERE published_at >= ? AND published_at < ? ORDER BY ticker"
    named = [row["ticker"] for row in store.rows(sql, clock.to_store(start), clock.to_store(end))]
    sectors = book().sectors
    known = {ticker: sectors[ticker] for ticker in named if sectors.get(ticker, UNKNOWN_SECTOR) != UNKNOWN_SECTOR}
    return list(known), list(known.values())
