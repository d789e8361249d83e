"""The trend: an index of sentiment over stories beside the heat of articles, for any topics, tickers, sources and window.

The index is the mean of P(positive) - P(negative) over stories, each counted once, where its leading article stands; heat counts
articles. With few stories the mean is shrunk toward a prior (shrink.estimate, shrink.index), the band is a 95 % bootstrap
(shrink.band), and below MIN_STORIES there is no point at all (`enough` is False). The prior is that of the same filters over the 30
days before the window's end, of all news where those are too few. Every figure comes out of the kept-up sums (rollup.py).
Windows are taken at whole 5 minutes (start down, end up); all moments are aware UTC. Never writes, never draws.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.nouns import Filters, FMError
from fmcore.sentiment import rollup, shrink
from fmcore.sentiment.evidence import Options, article, copies, drivers, options, prices, stories
from fmcore.sentiment.scoring import Backlog, backlog
from fmcore.sentiment.shrink import MIN_STORIES, Prior
from fmcore.store.store import Store

__all__ = ["BUCKETS", "MIN_STORIES", "Backlog", "Freshness", "Options", "Overall", "TooFine", "article", "backlog", "buckets_for", "copies",
           "drivers", "freshness", "heat", "movers", "options", "overall", "prices", "prior", "series", "stories"]  # fmt: skip

BUCKETS = {"5min": 1, "15min": 3, "1h": 12, "6h": 72, "1d": 288}
"""Name -> length in 5-minute buckets."""
MAX_POINTS = 2_100
"""Most buckets of one series: a week by 5 minutes, twelve weeks by the hour."""
HISTORY_DAYS = 30
BY = ("topic", "ticker", "source")


class TooFine(FMError):
    """The window holds more buckets than can be drawn."""


@dataclass(frozen=True)
class Overall:
    """A window in one figure. index, low, high: in [-1, 1], None where `enough` is False.

    change: against the window of the same length before (None without a start, or where either has not enough news); change_30d:
    against the mean of the 30 days before the window's start. n_before and n_30d are the stories behind those.
    """

    index: float | None
    low: float | None
    high: float | None
    enough: bool
    n_stories: int
    n_articles: int
    n_negative: int
    change: float | None
    n_before: int
    change_30d: float | None
    n_30d: int
    prior: Prior


@dataclass(frozen=True)
class Freshness:
    """When the newest scored article was published, and when an article was last scored; None where there is none."""

    newest_at: dt.datetime | None
    scored_at: dt.datetime | None


def buckets_for(store: Store, filters: Filters) -> list[str]:
    """The names of BUCKETS that a window can be drawn in, finest first."""
    at = rollup.scope(store, filters)
    return [name for name, step in BUCKETS.items() if _n_points(at, step) <= MAX_POINTS] or ["1d"]


def series(store: Store, filters: Filters, bucket: str) -> pd.DataFrame:
    """The index in time: columns bucket (aware UTC, its start), n_stories, n_articles, n_negative, n_neutral, n_positive, mean (as it is),
    index (shrunk), low, high, enough. One row a bucket of the window, those without news too; index, low and high are NaN where
    `enough` is False. Raises TooFine, KeyError on an unknown bucket.
    """
    step = BUCKETS[bucket]
    at = rollup.scope(store, filters)
    n_points = _n_points(at, step)
    if n_points > MAX_POINTS and bucket != "1d":
        raise TooFine(
            f"The window holds {n_points} buckets of {bucket}; at most {MAX_POINTS} can be drawn.",
            "Take longer buckets or a shorter window.",
        )
    found = rollup.sums(store, at, step=step)
    first = at.start - at.start % step
    every = pd.Index(np.arange(first, first + n_points * step, step), name="label")
    frame = found.set_index("label")[rollup.SUMS].reindex(every, fill_value=0)
    return _points(frame, prior(store, filters), bands=True).reset_index(drop=True).assign(bucket=_moments(every)).pipe(_first, "bucket")


def overall(store: Store, filters: Filters) -> Overall:
    """The window in one figure, against the one before it and against the 30 days before it."""
    at = rollup.scope(store, filters)
    length, month = at.end - at.start, HISTORY_DAYS * 288
    believed = prior(store, filters)
    now = _one(rollup.sums(store, at))
    compared = filters.start is not None and length > 0
    before = _one(rollup.sums(store, replace(at, start=at.start - length, end=at.start))) if compared else _NOTHING
    past = _one(rollup.sums(store, replace(at, start=at.start - month, end=at.start))) if compared else _NOTHING
    point, earlier, usual = (_points(f, believed, bands=True).iloc[0] for f in (now, before, past))

    def change(other: pd.Series) -> float | None:
        return float(point["index"] - other["index"]) if point["enough"] and other["enough"] else None

    shown = {name: float(point[name]) if point["enough"] else None for name in ("index", "low", "high")}
    return Overall(
        **shown, enough=bool(point["enough"]), n_stories=int(point["n_stories"]), n_articles=int(point["n_articles"]),
        n_negative=int(point["n_negative"]), change=change(earlier), n_before=int(earlier["n_stories"]), change_30d=change(usual),
        n_30d=int(usual["n_stories"]), prior=believed,
    )  # fmt: skip


def heat(store: Store, filters: Filters, bucket: str, *, by: str = "topic") -> pd.DataFrame:
    """key by time: columns key, bucket (aware UTC), n_stories, n_articles, n_negative, n_neutral, n_positive, mean, index, enough.

    by: "topic", "ticker" or "source". Only cells with news have a row, in order of key and bucket. An article with two tickers is in
    both rows. Each key's index is shrunk toward that key's own prior (of all news, where it has too little).
    """
    at = rollup.scope(store, filters)
    found = _kept(rollup.sums(store, at, by=by, step=BUCKETS[bucket]), filters, by)
    priors = _priors(store, filters, at, by)
    shrunk = _points(found, [priors.get(key, priors[None]) for key in found["key"]], bands=False)
    frame = shrunk.assign(key=found["key"].to_numpy(), bucket=_moments(found["label"]))
    return _first(frame.sort_values(["key", "bucket"], ignore_index=True), "key", "bucket")


def movers(store: Store, filters: Filters, *, by: str = "topic", days: int = 7) -> pd.DataFrame:
    """What changed most: the last `days` days (to filters.end, else to now) against as many before, largest |z| first.

    Columns key, index, before, change, low, high, z, n_stories, n_before, n_articles, n_articles_before, enough, spark. change is of
    the shrunk indices; low and high its 95 % interval, z the change over its standard error, both from the stories' variance
    (independent samples); spark a list of the daily means of the last 30 days, oldest first, None where a day has no story. Where
    either window has not enough news, `enough` is False, and index to z are NaN.
    """
    end = filters.end or clock.now()
    at = replace(rollup.scope(store, replace(filters, end=end)), start=0)
    month, length = HISTORY_DAYS * 288, days * 288
    cuts = [at.end - 2 * length, at.end - length, at.end]
    both = _kept(rollup.sums(store, at, by=by, cuts=cuts), filters, by)
    now, before = (both[both["label"] == i].set_index("key")[rollup.SUMS] for i in (1, 0))
    keys = now.index.union(before.index)
    now, before = now.reindex(keys, fill_value=0), before.reindex(keys, fill_value=0)
    history = _history(store, replace(at, start=at.end - month), by)
    priors = _priors_of(store, filters, at, history)
    believed = [priors.get(key, priors[None]) for key in keys]
    a, b = _points(now, believed, bands=False), _points(before, believed, bands=False)
    error = np.sqrt(_variance(now) + _variance(before))
    frame = pd.DataFrame({"key": keys, "index": a["index"].to_numpy(), "before": b["index"].to_numpy()})
    frame["change"] = frame["index"] - frame["before"]
    frame["low"], frame["high"] = frame["change"] - 1.96 * error, frame["change"] + 1.96 * error
    frame["z"] = frame["change"] / np.maximum(error, 1e-3)
    frame["n_stories"], frame["n_before"] = a["n_stories"].to_numpy(), b["n_stories"].to_numpy()
    frame["n_articles"], frame["n_articles_before"] = a["n_articles"].to_numpy(), b["n_articles"].to_numpy()
    frame["enough"] = a["enough"].to_numpy() & b["enough"].to_numpy()
    frame.loc[~frame["enough"], ["index", "before", "change", "low", "high", "z"]] = np.nan
    sparks = _sparks(history, at.end)
    frame["spark"] = [sparks.get(key, [None] * HISTORY_DAYS) for key in keys]
    return frame.sort_values(["z", "n_articles"], key=lambda c: -c.abs(), ignore_index=True, kind="stable")


def freshness(store: Store) -> Freshness:
    """How new the scored news is; looks back a day, then two months, then all the way."""
    [row] = store.rows("SELECT max(bucket) AS last FROM trend_facts WHERE batch = (SELECT max(batch) FROM trend_facts)")
    if row["last"] is None:
        return Freshness(None, None)
    since = clock.to_store(rollup.moment_of(row["last"]) - dt.timedelta(days=1))
    [row] = store.rows("SELECT max(published_at) AS newest_at, max(scored_at) AS scored_at FROM articles WHERE published_at >= ?", since)
    return Freshness(clock.from_store(row["newest_at"]), clock.from_store(row["scored_at"]))


def prior(store: Store, filters: Filters) -> Prior:
    """What the index of these filters is shrunk toward: see the module's docstring."""
    at = rollup.scope(store, filters)
    then = replace(at, start=at.end - HISTORY_DAYS * 288)
    own = shrink.estimate(rollup.sums(store, then, step=288), "key")
    return own or _of_everything(store, then)


def _of_everything(store: Store, then: rollup.Scope) -> Prior:
    everything = replace(then, topic=None, source=None, tickers=None)
    return shrink.estimate(rollup.sums(store, everything, step=288), "everything") or shrink.DEFAULT


def _history(store: Store, then: rollup.Scope, by: str) -> pd.DataFrame:
    return rollup.sums(store, then, by=by, step=288)


def _priors(store: Store, filters: Filters, at: rollup.Scope, by: str) -> dict[str | None, Prior]:
    return _priors_of(store, filters, at, _history(store, replace(at, start=at.end - HISTORY_DAYS * 288), by))


def _priors_of(store: Store, filters: Filters, at: rollup.Scope, history: pd.DataFrame) -> dict[str | None, Prior]:
    """The prior of each key that has history enough; under None, that of everything."""
    found: dict[str | None, Prior] = {None: _of_everything(store, replace(at, start=at.end - HISTORY_DAYS * 288))}
    for key, rows in history.groupby("key", sort=False):
        own = shrink.estimate(rows, "key")
        if own is not None:
            found[key] = own
    return found


def _points(frame: pd.DataFrame, believed: Prior | Sequence[Prior], *, bands: bool) -> pd.DataFrame:
    """Rows of sums as points: counts, mean, index, enough, and the band where asked for (one prior for all then)."""
    n, total, _ = shrink.totals(frame)
    stories = n.sum(axis=1)
    enough = stories >= MIN_STORIES
    out = pd.DataFrame({"n_stories": stories.astype(np.int64), "n_articles": frame["n_articles"].to_numpy(np.int64)})
    for i, name in enumerate(rollup.CLASSES):
        out[f"n_{name}"] = n[:, i].astype(np.int64)
    out["mean"] = np.where(stories > 0, total.sum(axis=1) / np.maximum(stories, 1), np.nan)
    out["index"] = np.where(enough, shrink.index(frame, believed), np.nan)
    if bands:
        out["low"], out["high"] = shrink.band(frame, believed)
    return out.assign(enough=enough)


def _variance(frame: pd.DataFrame) -> np.ndarray:
    """The squared standard error of each row's mean."""
    n, total, squares = (part.sum(axis=1) for part in shrink.totals(frame))
    some = np.maximum(n, 2)
    return np.maximum(squares - total**2 / some, 0) / (some - 1) / some


def _sparks(history: pd.DataFrame, end: int) -> dict[str, list[float | None]]:
    """key -> the daily means of the 30 UTC days up to `end`."""
    last = (end - 1) // 288
    n, total, _ = (part.sum(axis=1) for part in shrink.totals(history))
    found: dict[str, list[float | None]] = {}
    for key, day, count, value in zip(history["key"], history["label"] // 288, n, total, strict=True):
        at = int(day) - last + HISTORY_DAYS - 1
        if count > 0 and 0 <= at < HISTORY_DAYS:
            found.setdefault(key, [None] * HISTORY_DAYS)[at] = round(value / count, 4)
    return found


def _kept(found: pd.DataFrame, filters: Filters, by: str) -> pd.DataFrame:
    """Only the keys that are filtered on: an article with tickers A and B, found by A, is no row of B."""
    wanted: Sequence[Any] = {"topic": filters.topics, "ticker": filters.tickers, "source": filters.sources}[by]
    return found[found["key"].isin(wanted)].reset_index(drop=True) if wanted else found


def _one(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[rollup.SUMS] if len(frame) else _NOTHING


_NOTHING = pd.DataFrame([[0] * len(rollup.SUMS)], columns=rollup.SUMS)


def _n_points(at: rollup.Scope, step: int) -> int:
    return -(-at.end // step) - at.start // step if at.end > at.start else 0


def _moments(labels: pd.Series | pd.Index) -> pd.DatetimeIndex:
    return pd.to_datetime(np.asarray(labels, dtype=np.int64) * rollup.BUCKET_S, unit="s", utc=True)


def _first(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return frame[[*columns, *(c for c in frame.columns if c not in columns)]]
