"""The trend: an index of sentiment over stories beside the heat of articles, for any topics, tickers, sources and window.

The index is the mean of P(positive) - P(negative) over stories, each counted once, where its leading article stands; heat counts
articles. With few stories the mean is shrunk toward a prior (shrink.estimate, shrink.index), the band is a 95 % bootstrap
(shrink.band), and below MIN_STORIES there is no point at all (`enough` is False). The prior is that of the same filters over the 30
days before the window's end, of all news where those are too few. Every figure comes out of the kept-up sums (rollup.py).
Windows are taken at whole 5 minutes (start down, end up); all moments are aware UTC. Never writes, never draws.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.nouns import Filters, FMError
from fmcore.sentiment import rollup, shrink
from fmcore.sentiment.evidence import Options, article, copies, options, prices, stories
from fmcore.sentiment.scoring import Backlog, backlog
from fmcore.sentiment.shrink import MIN_STORIES, Prior
from fmcore.store.store import Store

__all__ = ["BUCKETS", "MIN_STORIES", "Backlog", "Freshness", "Options", "Overall", "TooFine", "article", "backlog", "buckets_for", "copies",
           "freshness", "heat", "movers", "options", "overall", "prices", "prior", "series", "stories"]  # fmt: skip

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
    labels = np.arange(first, first + n_points * step, step)
    values = np.zeros((n_points, len(rollup.SUMS)), np.int64)
    values[(found.labels - first) // step] = found.values
    return pd.DataFrame({"bucket": _moments(labels), **_points(values, _prior(store, at, found), bands=True)})


def overall(store: Store, filters: Filters) -> Overall:
    """The window in one figure, against the one before it and against the 30 days before it."""
    at = rollup.scope(store, filters)
    length, month = at.end - at.start, HISTORY_DAYS * 288
    values = np.zeros((3, len(rollup.SUMS)), np.int64)
    if filters.start is not None and length > 0:
        spans = ((at.start, at.end), (at.start - length, at.start), (at.start - month, at.start))
        then = _then(at)
        cuts = sorted({*range(then.start, then.end + 1, 288), *(edge for span in spans for edge in span)})
        found = rollup.sums(store, at, cuts=cuts)
        days = _daily(found, np.array(cuts)[found.labels], then)
        for row, (start, end) in enumerate(spans):
            inside = (found.labels >= cuts.index(start)) & (found.labels < cuts.index(end))
            values[row] = found.values[inside].sum(axis=0)
    else:
        days = None
        values[0] = rollup.sums(store, at).values.sum(axis=0)
    believed = _prior_of(store, at, days)
    points = _points(values, believed, bands=True)
    shown = {name: float(points[name][0]) if points["enough"][0] else None for name in ("index", "low", "high")}

    def change(row: int) -> float | None:
        return float(points["index"][0] - points["index"][row]) if points["enough"][0] and points["enough"][row] else None

    return Overall(
        **shown, enough=bool(points["enough"][0]), n_stories=int(points["n_stories"][0]), n_articles=int(points["n_articles"][0]),
        n_negative=int(points["n_negative"][0]), change=change(1), n_before=int(points["n_stories"][1]), change_30d=change(2),
        n_30d=int(points["n_stories"][2]), prior=believed,
    )  # fmt: skip


def heat(store: Store, filters: Filters, bucket: str, *, by: str = "topic") -> pd.DataFrame:
    """key by time: columns key, bucket (aware UTC), n_stories, n_articles, n_negative, n_neutral, n_positive, mean, index, enough.

    by: "topic", "ticker" or "source". Only cells with news have a row, in order of key and bucket. An article with two tickers is in
    both rows. Each key's index is shrunk toward that key's own prior (of all news, where it has too little).
    """
    at = rollup.scope(store, filters)
    found = _kept(rollup.sums(store, at, by=by, step=BUCKETS[bucket]), filters, by)
    then = _then(at)
    history = _daily(found, found.labels, then) if at.start <= then.start else rollup.sums(store, then, by=by, step=288)
    points = _points(found.values, _priors(store, at, history, found.keys), bands=False)
    return pd.DataFrame({"key": found.keys, "bucket": _moments(found.labels), **points})


def movers(store: Store, filters: Filters, *, by: str = "topic", days: int = 7) -> pd.DataFrame:
    """What changed most: the last `days` days (to filters.end, else to now) against as many before, largest |z| first.

    Columns key, index, before, change, low, high, z, n_stories, n_before, n_articles, n_articles_before, enough, spark. change is of
    the shrunk indices; low and high its 95 % interval, z the change over its standard error, both from the stories' variance
    (independent samples); spark a list of the daily means of the last 30 days, oldest first, None where a day has no story. Where
    either window has not enough news, `enough` is False, and index to z are NaN.
    """
    at = rollup.scope(store, replace(filters, start=None, end=filters.end or clock.now()))
    found, history = _windows(store, at, by, days * 288)
    found = _kept(found, filters, by)
    keys = np.unique(found.keys)
    values = np.zeros((2, len(keys), len(rollup.SUMS)), np.int64)
    values[found.labels, np.searchsorted(keys, found.keys)] = found.values
    believed = _priors(store, at, history, keys)
    before, now = (_points(part, believed, bands=False) for part in values)
    error = np.sqrt(_variance(values[0]) + _variance(values[1]))
    enough = now["enough"] & before["enough"]
    change = now["index"] - before["index"]
    figures = {"index": now["index"], "before": before["index"], "change": change, "low": change - 1.96 * error,
               "high": change + 1.96 * error, "z": change / np.maximum(error, 1e-3)}  # fmt: skip
    sparks = _sparks(history, at.end)
    frame = pd.DataFrame({
        "key": keys, **{name: np.where(enough, column, np.nan) for name, column in figures.items()},
        "n_stories": now["n_stories"], "n_before": before["n_stories"], "n_articles": now["n_articles"],
        "n_articles_before": before["n_articles"], "enough": enough, "spark": [sparks.get(key, [None] * HISTORY_DAYS) for key in keys],
    })  # fmt: skip
    order = np.lexsort((-frame["n_articles"], -frame["z"].abs().fillna(-1)))
    return frame.iloc[order].reset_index(drop=True)


def freshness(store: Store) -> Freshness:
    """How new the scored news is."""
    [row] = store.rows("SELECT max(published_at) AS newest_at, max(scored_at) AS scored_at FROM articles")
    return Freshness(clock.from_store(row["newest_at"]), clock.from_store(row["scored_at"]))


def prior(store: Store, filters: Filters) -> Prior:
    """What the index of these filters is shrunk toward: see the module's docstring."""
    return _prior(store, rollup.scope(store, filters))


def _prior(store: Store, at: rollup.Scope, found: rollup.Cells | None = None) -> Prior:
    """found: the sums of the scope by any of BUCKETS, where they were read already."""
    then = _then(at)
    return _prior_of(store, at, _daily(found, found.labels, then) if found is not None and at.start <= then.start else None)


def _prior_of(store: Store, at: rollup.Scope, days: rollup.Cells | None) -> Prior:
    then = _then(at)
    days = rollup.sums(store, then, step=288) if days is None else days
    return shrink.estimate(days.values, "key") or _of_everything(store, then)


def _daily(cells: rollup.Cells, starts: np.ndarray, then: rollup.Scope) -> rollup.Cells:
    """The rows whose span starts (at these buckets) and ends within the days of `then`, added up by day."""
    labels = starts - starts % 288
    keys = None if cells.keys is None else cells.keys.astype(str)
    part = rollup.Cells(labels, keys, cells.values).of((starts >= then.start) & (starts < then.end))
    return rollup.added([part], keyed=keys is not None)


def _then(at: rollup.Scope) -> rollup.Scope:
    """The 30 whole UTC days up to the window's end."""
    end = at.end - at.end % 288
    return replace(at, start=end - HISTORY_DAYS * 288, end=end)


def _of_everything(store: Store, then: rollup.Scope) -> Prior:
    everything = replace(then, topic=None, source=None, tickers=None)
    return shrink.estimate(rollup.sums(store, everything, step=288).values, "everything") or shrink.DEFAULT


def _windows(store: Store, at: rollup.Scope, by: str, length: int) -> tuple[rollup.Cells, rollup.Cells]:
    """The two windows before the scope's end, labelled 0 and 1, and the keys' 30 days (see _then), in one reading."""
    then, middle = _then(at), at.end - length
    edges = sorted({*range(then.start, then.end + 1, 288), middle - length, middle, at.end})
    cells = rollup.sums(store, at, by=by, cuts=edges)
    starts = np.array(edges)[cells.labels]
    windows = rollup.Cells((starts >= middle).astype(np.int64), cells.keys.astype(str), cells.values).of(starts >= middle - length)
    return rollup.added([windows], keyed=True), _daily(cells, starts, then)


def _priors(store: Store, at: rollup.Scope, history: rollup.Cells, keys: Sequence[str]) -> list[Prior]:
    """The prior of each key: its own, where its history is enough, else that of everything."""
    own: dict[str, Prior | None] = {}
    starts = np.flatnonzero(np.r_[True, history.keys[1:] != history.keys[:-1]]) if len(history) else np.zeros(0, np.int64)
    for start, end in itertools.pairwise([*starts, len(history)]):
        own[history.keys[start]] = shrink.estimate(history.values[start:end], "key")
    if all(own.get(key) for key in keys):
        return [own[key] for key in keys]
    everything = _of_everything(store, _then(at))
    return [own.get(key) or everything for key in keys]


def _points(values: np.ndarray, believed: Prior | Sequence[Prior], *, bands: bool) -> dict[str, np.ndarray]:
    """Rows of sums as the columns of points: counts, mean, index, the band where asked for (one prior for all then), enough."""
    n, total, _ = shrink.totals(values)
    stories = n.sum(axis=1)
    enough = stories >= MIN_STORIES
    out = {"n_stories": stories.astype(np.int64), "n_articles": values[:, 0]}
    out |= {f"n_{name}": values[:, 1 + i] for i, name in enumerate(rollup.CLASSES)}
    out["mean"] = np.where(stories > 0, total.sum(axis=1) / np.maximum(stories, 1), np.nan)
    out["index"] = np.where(enough, shrink.index(values, believed), np.nan) if len(values) else np.zeros(0)
    if bands:
        out["low"], out["high"] = shrink.band(values, believed)
    return out | {"enough": enough}


def _variance(values: np.ndarray) -> np.ndarray:
    """The squared standard error of each row's mean."""
    n, total, squares = (part.sum(axis=1) for part in shrink.totals(values))
    some = np.maximum(n, 2)
    return np.maximum(squares - total**2 / some, 0) / (some - 1) / some


def _sparks(history: rollup.Cells, end: int) -> dict[str, list[float | None]]:
    """key -> the daily means of the 30 whole UTC days up to `end`."""
    n, total, _ = (part.sum(axis=1) for part in shrink.totals(history.values))
    places = history.labels // 288 - end // 288 + HISTORY_DAYS
    shown = np.flatnonzero((n > 0) & (places >= 0) & (places < HISTORY_DAYS))
    means = np.round(total[shown] / n[shown], 4).tolist()
    found: dict[str, list[float | None]] = {}
    for row, place, mean in zip(shown, places[shown].tolist(), means, strict=True):
        found.setdefault(history.keys[row], [None] * HISTORY_DAYS)[place] = mean
    return found


def _kept(found: rollup.Cells, filters: Filters, by: str) -> rollup.Cells:
    """Only the keys that are filtered on: an article with tickers A and B, found by A, is no row of B."""
    wanted: Sequence[Any] = {"topic": filters.topics, "ticker": filters.tickers, "source": filters.sources}[by]
    return found.of(np.isin(found.keys.astype(str), list(wanted))) if wanted and len(found) else found


def _n_points(at: rollup.Scope, step: int) -> int:
    return -(-at.end // step) - at.start // step if at.end > at.start else 0


def _moments(labels: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex((labels * rollup.BUCKET_S).astype("datetime64[s]"), tz="UTC")
