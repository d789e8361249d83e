"""What stands behind a trend: the stories, their copies, single articles with their text and scores, and prices.

Reads only, and never more of the articles than a bounded stretch of time when the moment of what is looked for is known. Counting is
rollup.py's part.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from fmcore import clock
from fmcore.nouns import Filters
from fmcore.sentiment import rollup
from fmcore.store.store import Store

MAX_STORIES = 1_000
_STRETCHES = (dt.timedelta(days=1), dt.timedelta(days=60))
_ORDERS = {
    "newest": "published_at DESC, net",
    "negative": "net, published_at DESC",
    "articles": "n_articles DESC, published_at DESC, net",
}
_ARTICLE = """document_id, story_id, leads, published_at, source, topic, topic_score, tickers, sentiment, net, p_negative, p_neutral,
              p_positive, lexicon, sentiment_version, topic_version, scored_at"""


@dataclass(frozen=True)
class Options:
    """What can be filtered on, in alphabetical order."""

    topics: tuple[str, ...]
    tickers: tuple[str, ...]
    sources: tuple[str, ...]


def options(store: Store) -> Options:
    """The topics, tickers and sources that scored articles ever had."""
    named = store.rows("SELECT kind, name FROM trend_names WHERE kind != 'tickers' ORDER BY name")
    tickers = store.rows("SELECT DISTINCT ticker FROM trend_tickers ORDER BY ticker")
    return Options(
        topics=tuple(row["name"] for row in named if row["kind"] == "topic"),
        tickers=tuple(row["ticker"] for row in tickers),
        sources=tuple(row["name"] for row in named if row["kind"] == "source"),
    )


def stories(
    store: Store, filters: Filters, *, limit: int = 50, order: Literal["newest", "negative", "articles"] = "newest"
) -> pd.DataFrame:
    """The stories whose leading article lies in the scope, at most `limit` (1,000 at most), in the order asked for.

    Columns story_id, document_id (its leading article), published_at (aware UTC), source, url, title, sentiment, net (float in [-1, 1]),
    p_negative, p_neutral, p_positive, lexicon (VADER's compound), topic, tickers (list), n_articles (all its copies, wherever they are),
    synthetic. "negative" is lowest net first. Raises KeyError on another order.
    """
    at = rollup.scope(store, filters)
    start, end = (clock.to_store(rollup.moment_of(bucket)) for bucket in (at.start, at.end))
    found = pd.DataFrame()
    wide = at.topic is None and at.source is None and at.tickers is None
    for narrow in (*_narrowed(order, end, wide=wide), "true"):
        picked = rollup.rows_of("stories", at, narrow, "published_at >= ? AND published_at < ?")
        top = f"SELECT rowid {picked} ORDER BY {_ORDERS[order]} LIMIT {min(limit, MAX_STORIES)}"
        found = store.frame(f"SELECT * FROM stories WHERE rowid IN ({top}) ORDER BY {_ORDERS[order]}", start, end)
        if len(found) >= min(limit, MAX_STORIES):
            break
    sets = rollup.names(store, "tickers", found["tickers"].tolist())
    named = {kind: found[kind].map(rollup.names(store, kind)) for kind in ("topic", "source")}
    return found.assign(
        **named, document_id=found["story_id"], published_at=found["published_at"].dt.tz_localize("UTC"), net=found["net"] / 10_000,
        sentiment=found["class"].map(dict(enumerate(rollup.CLASSES))), tickers=[sets[number].split(",") if sets[number] else []
                                                                               for number in found["tickers"]],
    )[["story_id", "document_id", "published_at", "source", "url", "title", "sentiment", "net", "p_negative", "p_neutral", "p_positive",
       "lexicon", "topic", "tickers", "n_articles", "synthetic"]]  # fmt: skip


def _narrowed(order: str, end: dt.datetime, *, wide: bool) -> tuple[str, ...]:
    """Conditions under which the first stories of an order are looked for before all are: what comes first in the order fulfils them, so
    that enough rows under one are the right rows, and few rows get as far as being sorted. wide: all news,
    where the first are further out."""
    if order == "newest":
        return tuple(f"published_at >= TIMESTAMP '{end - stretch:%Y-%m-%d %H:%M:%S}'" for stretch in _STRETCHES)
    if order == "negative":
        return ("net < -9900", "net < -9500") if wide else ("net < -9500", "net < -7500")
    return ("n_articles > 12", "n_articles > 3")


def copies(store: Store, story_id: str, *, published_at: dt.datetime | None = None) -> pd.DataFrame:
    """All articles of a story, first published first: the columns of `stories` without n_articles, and `leads`. Empty when there is no
    such story. published_at: the lead's, where the caller knows it; without it the whole table is looked through.
    """
    known = "" if published_at is None else " AND published_at = ?"
    lead = store.rows(f"SELECT published_at, n_articles FROM stories WHERE story_id = ?{known}", story_id,
                      *([clock.to_store(published_at)] if known else []))  # fmt: skip
    first, n = (lead[0]["published_at"], lead[0]["n_articles"]) if lead else (dt.datetime(2999, 1, 1), 0)
    sql = f"SELECT {_ARTICLE} FROM articles WHERE story_id = ? AND published_at >= ?"
    for stretch in (dt.timedelta(days=4), dt.timedelta(days=30), None):
        until = "" if stretch is None else " AND published_at <= ?"
        found = store.rows(f"{sql}{until} ORDER BY published_at, document_id", story_id, first, *([first + stretch] if until else []))
        if len(found) >= n:
            break
    return _with_documents(store, found)


def article(store: Store, document_id: str, *, published_at: dt.datetime | None = None) -> dict[str, Any] | None:
    """One scored article with its text and both models' answers, as a dictionary of the columns of `articles` (net as a float in
    [-1, 1], moments aware) and url, title, body, language, synthetic, n_articles; None when it is not known or not scored yet.
    published_at as in `copies`."""
    known, params = (" AND published_at = ?", [clock.to_store(published_at)]) if published_at else ("", [])
    rows = store.rows(f"SELECT {_ARTICLE} FROM articles WHERE document_id = ?{known}", document_id, *params)
    if not rows:
        return None
    found = rows[0]
    document = store.rows("SELECT url, title, body, language, synthetic FROM documents WHERE id = ? AND published_at = ?",
                          document_id, found["published_at"])  # fmt: skip
    empty = {**_NO_DOCUMENT, "body": ""}
    moments = {name: clock.from_store(found[name]) for name in ("published_at", "scored_at")}
    return {**found, **moments, "net": found["net"] / 10_000, **(document[0] if document else empty), "n_articles": _size(store, found)}


def _size(store: Store, found: Mapping[str, Any]) -> int:
    """How many articles an article's story has. Its lead was published before it, mostly not long."""
    for since in (found["published_at"] - dt.timedelta(days=4), dt.datetime(1, 1, 1)):
        sql = "SELECT n_articles FROM stories WHERE published_at >= ? AND published_at <= ? AND story_id = ?"
        rows = store.rows(sql, since, found["published_at"], found["story_id"])
        if rows:
            return rows[0]["n_articles"]
    return 1


def prices(store: Store, ticker: str, start: dt.datetime, end: dt.datetime) -> pd.DataFrame:
    """Closing prices, oldest first: columns priced_at (aware UTC), close. start <= priced_at < end. The last that was stored of a moment
    holds."""
    frame = store.frame(
        """SELECT priced_at, last(close ORDER BY rowid) AS close FROM prices WHERE ticker = ? AND priced_at >= ? AND priced_at < ?
           GROUP BY priced_at ORDER BY priced_at""",
        ticker, clock.to_store(start), clock.to_store(end),
    )  # fmt: skip
    return frame.assign(priced_at=frame["priced_at"].dt.tz_localize("UTC"))


def _with_documents(store: Store, found: list[dict[str, Any]]) -> pd.DataFrame:
    """Articles with their url, title and language; a document that was removed leaves them empty."""
    ids, moments = [row["document_id"] for row in found], [row["published_at"] for row in found]
    sql = f"""SELECT id, url, title, language, synthetic FROM documents WHERE published_at >= ? AND published_at <= ?
              AND id IN ({', '.join('?' * len(ids)) or 'NULL'})"""
    documents = {row.pop("id"): row for row in store.rows(sql, min(moments), max(moments), *ids)} if found else {}
    rows = [{**row, "net": row["net"] / 10_000, **documents.get(row["document_id"], _NO_DOCUMENT)} for row in found]
    frame = pd.DataFrame(rows, columns=[*(name.strip() for name in _ARTICLE.split(",")), *_NO_DOCUMENT])
    return frame.assign(**{name: pd.to_datetime(frame[name], utc=True) for name in ("published_at", "scored_at")})


_NO_DOCUMENT = {"url": "", "title": "", "language": "", "synthetic": False}
