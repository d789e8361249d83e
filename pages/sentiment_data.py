"""What the news room's pages ask of the store, once for all visitors: kept until news was scored or an alert changed.

Owns the keys of these caches; every figure is made in fmcore.sentiment. News is the same for everyone who is let in: nothing here is a
visitor's own.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import streamlit as st

from fmcore import clock
from fmcore.nouns import Alert, Filters
from fmcore.sentiment import alerts, digest, evidence, index, pulse, scoring

KEPT = 256
BACKLOG_S = 5.0
STEP_S = 300
"""A window without an end ends with the 5 minutes that have begun: the same for everyone who looks in them."""

Stamp = tuple[str, str]
"""Which store, and the last change of what is drawn from it."""


def now() -> dt.datetime:
    """The end of the 5 minutes that have begun."""
    seconds = int(clock.now().timestamp())
    return dt.datetime.fromtimestamp(seconds - seconds % STEP_S + STEP_S, clock.UTC)


def stamp(store: Any) -> Stamp:
    """Changes when news was scored or an alert changed, and at nothing else that is written (runs beat every few seconds)."""
    return _stamp(store, str(store.path), store.n_commits)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def _stamp(_store: Any, path: str, n_commits: int) -> Stamp:
    return path, pulse.beat(_store)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def series(_store: Any, at: Stamp, filters: Filters, bucket: str) -> pd.DataFrame:
    return index.series(_store, filters, bucket)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def overall(_store: Any, at: Stamp, filters: Filters) -> index.Overall:
    return index.overall(_store, filters)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def heat(_store: Any, at: Stamp, filters: Filters, bucket: str, by: str) -> pd.DataFrame:
    return index.heat(_store, filters, bucket, by=by)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def movers(_store: Any, at: Stamp, filters: Filters, by: str, days: int) -> pd.DataFrame:
    return index.movers(_store, filters, by=by, days=days)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def stories(_store: Any, at: Stamp, filters: Filters, limit: int, order: str) -> pd.DataFrame:
    return evidence.stories(_store, filters, limit=limit, order=order)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def options(_store: Any, at: Stamp) -> evidence.Options:
    return evidence.options(_store)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def prices(_store: Any, at: Stamp, ticker: str, start: dt.datetime, end: dt.datetime) -> pd.DataFrame:
    return evidence.prices(_store, ticker, start, end)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def synthetic(_store: Any, at: Stamp) -> bool:
    return pulse.is_synthetic(_store)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def freshness(_store: Any, at: Stamp) -> index.Freshness:
    return index.freshness(_store)


def backlog(store: Any) -> scoring.Backlog:
    """What waits to be scored, counted every BACKLOG_S seconds at most, whoever asks."""
    return _backlog(store, str(store.path))


@st.cache_data(max_entries=8, ttl=BACKLOG_S, show_spinner=False)
def _backlog(_store: Any, path: str) -> scoring.Backlog:
    return scoring.backlog(_store)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def brief(_store: Any, at: Stamp, until: dt.datetime, watchlist: tuple[str, ...], limit: int) -> digest.Brief:
    return digest.brief(_store, now=until, watchlist=watchlist, limit=limit)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def fired(_store: Any, at: Stamp, since: dt.datetime) -> pd.DataFrame:
    """Alerts that stood open since a moment: columns at (aware UTC, when it began), severity, state, kind, dimension, key, title, id."""
    found = alerts.inbox(_store, states=(*alerts.OPEN, "resolved"), since=since, limit=2_000)
    names = ["at", "severity", "state", "kind", "dimension", "key", "title", "id"]
    rows = [(a.starts_at, a.severity, a.state, a.kind, a.dimension, a.key, title_of(a), a.id) for a in found]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(at=pd.to_datetime(frame["at"], utc=True))  # an empty column has no type of its own


WORDS = {
    "surge": "bad news surges", "flood": "one source floods", "dead feed": "the feed is dead",
    "no data": "no news comes", "error": "a rule fails",
}  # fmt: skip
"""kind -> what happened, in words that follow a name."""


def title_of(alert: Alert) -> str:
    """An alert in a few words: "Fraud: bad news surges". Not escaped."""
    words = WORDS.get(alert.kind, alert.kind)
    if alert.kind == "shift":
        words = f"the index has {'fallen' if alert.value < alert.expected else 'risen'}"
    return f"{alert.key or 'All news'}: {words}"
