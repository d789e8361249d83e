"""The morning brief: what changed most against expectation on the watchlist, each line made from numbers and with its evidence.

Two questions a key: were there more negative stories than its share of all that was published lets expect, and did its index move further
than it moves from day to day. Both answers are in standard deviations, so that they can be ranked against each other. Writes no sentence
below a least number of stories. Owns the watchlist (the last row holds) and the words; counts are rollup.py's.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fmcore import clock
from fmcore.nouns import Filters, FMError
from fmcore.store.store import Store
from fmcore.text import clean

if TYPE_CHECKING:
    import pandas as pd

WINDOW = dt.timedelta(hours=24)
DAYS = 28
"""Windows of the past that the newest one is held against."""
LEAST_DAYS = 7
"""Of these, so many must hold news of a key before anything is said of it."""
LEAST_STORIES = 5
"""Stories that a key must have in the newest window."""
LEAST_ALL = 20
"""Stories that all keys together must have in the newest window: below it there is no brief."""
LEAST_SURPRISE = 2.0
"""Standard deviations from which a change is worth a line: one in fifty days by chance."""
MAX_WATCHED = 200
NET_UNIT = 10_000
"""What articles.net is a multiple of."""


class BadWatchlist(FMError):
    """A watchlist that cannot be kept."""


@dataclass(frozen=True)
class Line:
    """One line of the brief. surprise: standard deviations; kind: "more negative news", "fell" or "rose"; evidence: document ids.

    numbers holds every figure of the text: n_negative, expected, n_stories, n_articles, index, before, change, days.
    """

    dimension: str
    key: str
    kind: str
    text: str
    surprise: float
    numbers: Mapping[str, float]
    evidence: tuple[str, ...]
    top_story: str


@dataclass(frozen=True)
class Brief:
    """The brief as of `until`. refusal says why there are no lines, and is "" when there are or nothing was out of the ordinary."""

    since: dt.datetime
    until: dt.datetime
    n_stories: int
    n_articles: int
    watchlist: tuple[str, ...]
    lines: tuple[Line, ...] = field(default=())
    refusal: str = ""


# ---------------------------------------------------------------- the watchlist


def watchlist(store: Store) -> tuple[str, ...]:
    """The tickers that the desk watches, in a person's order; empty means all."""
    rows = store.rows("SELECT tickers FROM watchlists ORDER BY n DESC LIMIT 1")
    return tuple(rows[0]["tickers"]) if rows else ()


def watch(store: Store, tickers: Sequence[str], *, by: str, now: dt.datetime | None = None) -> tuple[str, ...]:
    """Keep a watchlist in the place of the one before; empty means all tickers. Raises BadWatchlist."""
    kept = tuple(dict.fromkeys(ticker for raw in tickers if (ticker := clean(raw, limit=40)[0].strip())))
    if len(kept) > MAX_WATCHED:
        raise BadWatchlist(f"A watchlist holds {MAX_WATCHED} tickers at most, not {len(kept)}.", "Leave some out.")
    with store.write() as tx:
        ((n,),) = tx.execute("SELECT coalesce(max(n), 0) + 1 FROM watchlists")
        who = clean(by, limit=80)[0].strip() or "unknown"
        tx.execute("INSERT INTO watchlists VALUES (?, ?, ?, ?)", [n, list(kept), who, clock.to_store(now or clock.now())])
    return kept


# ---------------------------------------------------------------- the brief


def brief(store: Store, *, now: dt.datetime | None = None, watchlist: Sequence[str] = (), limit: int = 5) -> Brief:
    """What changed most in the 24 h before `now` against the 28 days before them, at most `limit` lines, most surprising first.

    With a watchlist the lines are of its tickers, without one of all tickers and topics.
    """
    until = now or clock.now()
    watched = tuple(watchlist)
    total = windows(store, until)
    newest = total[total["window"] == 0]
    n_stories = int(newest["n_stories"].sum())
    made = Brief(until - WINDOW, until, n_stories, int(newest["n_articles"].sum()), watched)
    if n_stories < LEAST_ALL:
        refusal = f"Too little news for a brief: {n_stories} stories in the last 24 h, {LEAST_ALL} are needed."
        return dataclasses.replace(made, refusal=refusal)
    found: list[Line] = []
    for dimension in ("ticker",) if watched else ("ticker", "topic"):
        counted = windows(store, until, by=dimension, tickers=watched)
        if watched:
            counted = counted[counted["key"].isin(watched)]
        found += [_line(dimension, row) for row in surprises(counted, total)]
    worth = [line for line in found if line.surprise >= LEAST_SURPRISE]
    best = sorted(worth, key=lambda line: (-line.surprise, line.dimension, line.key))[:limit]
    return dataclasses.replace(made, lines=tuple(_with_evidence(store, line, made.since, until) for line in best))


def windows(store: Store, until: dt.datetime, *, by: str | None = None, tickers: Sequence[str] = ()) -> pd.DataFrame:
    """News by key in windows of 24 h that end with the 5 minutes of `until`; window 0 is the newest, window DAYS the oldest.

    Columns: key, window, n_stories, n_articles, n_negative, and net, the sum over stories of P(positive) - P(negative).
    """
    import pandas as pd

    from fmcore.sentiment import rollup

    end, width = rollup.bucket_of(until) + 1, int(WINDOW.total_seconds()) // rollup.BUCKET_S
    edges = [end - width * ago for ago in range(DAYS + 1, -1, -1)]
    scope = rollup.scope(store, Filters(tickers=tuple(tickers), start=rollup.moment_of(edges[0]), end=rollup.moment_of(end)))
    found = rollup.sums(store, scope, by=by, cuts=edges)
    sums = pd.DataFrame(found.values, columns=rollup.SUMS)
    return pd.DataFrame(
        {
            "key": found.keys if by else "",
            "window": DAYS - found.labels,
            "n_stories": sums[[f"n_{side}" for side in rollup.CLASSES]].sum(axis=1),
            "n_articles": sums["n_articles"],
            "n_negative": sums["n_negative"],
            "net": sums[[f"sum_{side}" for side in rollup.CLASSES]].sum(axis=1) / NET_UNIT,
        }
    )


def surprises(windows: pd.DataFrame, total: pd.DataFrame) -> Iterator[dict]:
    """For each key with enough news: how far its newest window is from what the ones before let expect, as a row of numbers.

    windows: key, window (0 is the newest), n_stories, n_articles, n_negative, net. total: the same over all keys together.

    Negative stories: expected = share of the key in all stories before * all stories now; the variance is Poisson's times the
    dispersion that the key showed before (Pearson's chi square a window, at least 1). Index: the mean of the newest window against the
    mean of all before; the variance a story is what the windows before varied by, times their stories.
    """
    all_stories = total.groupby("window")["n_stories"].sum()
    n_all, n_before_all = int(all_stories.get(0, 0)), int(all_stories.drop(0, errors="ignore").sum())
    if not n_before_all:
        return
    for key, rows in windows.groupby("key", observed=True):
        newest, before = rows[rows["window"] == 0], rows[rows["window"] > 0]
        if len(before) < LEAST_DAYS or newest["n_stories"].sum() < LEAST_STORIES:
            continue
        now, n_before = newest.iloc[0], int(before["n_stories"].sum())
        share = (before["n_negative"].sum() + 0.5) / (n_before_all + 1.0)
        expected = share * n_all
        was = share * all_stories.reindex(before["window"]).to_numpy(dtype=float)
        dispersion = max(1.0, float(((before["n_negative"] - was) ** 2 / was.clip(min=1e-9)).mean()))
        more = (now["n_negative"] - expected) / (dispersion * expected) ** 0.5
        mean_before = float(before["net"].sum()) / n_before
        own = before[before["n_stories"] > 0]
        a_story = float((own["n_stories"] * (own["net"] / own["n_stories"] - mean_before) ** 2).mean())
        mean_now = float(now["net"] / now["n_stories"])
        moved = (mean_now - mean_before) / (max(a_story, 0.05) * (1 / now["n_stories"] + 1 / n_before)) ** 0.5
        yield {
            "key": key, "more": float(more), "moved": float(moved), "n_negative": int(now["n_negative"]), "expected": float(expected),
            "n_stories": int(now["n_stories"]), "n_articles": int(now["n_articles"]), "index": mean_now, "before": mean_before,
            "change": mean_now - mean_before, "days": len(before), "n_all": n_all,
        }  # fmt: skip


def _line(dimension: str, row: Mapping) -> Line:
    """The bigger of the two surprises in words; its numbers are those of the text."""
    numbers = {name: row[name] for name in row if name not in ("key", "more", "moved")}
    if row["more"] >= abs(row["moved"]):
        times = f", {row['n_negative'] / row['expected']:.1f} times as many" if row["expected"] >= 0.5 else ""
        text = (
            f"{row['n_negative']} negative stories in 24 h where {row['expected']:.1f} were to be expected{times} "
            f"({row['n_all']:,} stories published in all)."
        )
        return Line(dimension, row["key"], "more negative news", text, row["more"], numbers, (), "")
    kind = "fell" if row["moved"] < 0 else "rose"
    text = (
        f"The index {kind} to {_signed(row['index'])} over {row['n_stories']:,} stories; "
        f"its mean of the {row['days']} days before is {_signed(row['before'])}."
    )
    return Line(dimension, row["key"], kind, text, abs(row["moved"]), numbers, (), "")


def _signed(value: float) -> str:
    shown = round(value, 2)
    return f"{'+' if shown > 0 else '−' if shown < 0 else '±'}{abs(shown):.2f}"


def _with_evidence(store: Store, line: Line, since: dt.datetime, until: dt.datetime) -> Line:
    """The same line with the stories that say it: the most negative ones, or the most told ones of a rise."""
    from fmcore.sentiment import evidence

    side = Filters(start=since, end=until, **{f"{line.dimension}s": (line.key,)})
    found = evidence.stories(store, side, limit=3, order="articles" if line.kind == "rose" else "negative")
    top = str(found["title"].iloc[0]) if len(found) else ""
    return dataclasses.replace(line, evidence=tuple(found["document_id"]), top_story=top)
