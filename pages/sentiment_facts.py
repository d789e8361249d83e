"""What stands behind the news room's numbers: the models in use with their held-out figures beside the lexicon's, the failure suite, how
much waits to be scored; the empty desk; and what can be taken away as CSV or HTML."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from fmcore import clock
from fmcore.nouns import ModelVersion
from fmcore.sentiment import index, report
from fmcore.tasks import TASKS
from pages import figures, ui
from pages import sentiment_data as data
from pages import sentiment_stories as stories

IN_REPORT = 100
SUITE = "failure_suite"
"""Where a version's metrics keep what the failure suite found."""


# ---------------------------------------------------------------- models and scoring


def draw(desk: Any, at: data.Stamp) -> None:
    """The card: who scores, how good that is on held-out rows, what it fails at, and what waits."""
    ui.card("Models and scoring")
    for task in ("sentiment", "topic"):
        champion = desk.registry.champion(task) if task in TASKS else None
        if champion is None:
            st.markdown(f"**{task.capitalize()}**: no model is live.")
            continue
        _model(desk, task, champion)
    _backlog(desk)


def _model(desk: Any, task: str, champion: ModelVersion) -> None:
    """The version that scores: its held-out figures, the lexicon's on the same rows, and the failure suite's counts."""
    synthetic = bool(desk.registry.facts(champion).get("synthetic"))
    st.markdown(
        f"**{task.capitalize()}** {ui.chip(champion.version, icon=':material/deployed_code:')} {ui.synthetic_mark() if synthetic else ''}"
    )
    lines = [("This model", figures.at(champion.metrics, "accuracy"), figures.at(champion.metrics, "macro_f1"))]
    lexicon = figures.at(champion.metrics, "lexicon.accuracy")
    if lexicon is not None:
        lines.append(("VADER", lexicon, figures.at(champion.metrics, "lexicon.macro_f1")))
    for name, accuracy, f1 in lines:
        beside = f", macro F1 {figures.value(f1)}" if f1 else ""
        st.markdown(
            f"{name}: **{ui.esc(figures.value(accuracy))}** accuracy{ui.esc(beside)} :small[:gray[{ui.esc(figures.interval(accuracy))}]]"
        )
    ui.note(f"Held-out rows of {ui.esc(champion.dataset)} · trained {ui.esc(clock.ago(champion.created_at))}")
    suite = champion.metrics.get(SUITE)
    if isinstance(suite, Mapping):
        _suite(suite)


def _suite(suite: Mapping[str, Any]) -> None:
    """Pass and fail counts of the failure suite beside the lexicon's, and what kinds of sentence fail most."""
    n, passed = int(suite["n"]), int(suite["n_passed"])
    chips = [
        ui.chip(f"{passed} passed", "green", ":material/check:"),
        ui.chip(f"{n - passed} failed", "orange" if n > passed else "gray", ":material/close:"),
    ]
    beside = f"VADER passes {suite['n_lexicon']} of {n}"
    st.markdown(f"Failure suite {' '.join(chips)} :small[:gray[{ui.esc(beside)}]]")
    worst = sorted(suite["kinds"], key=lambda kind: kind["n_passed"] / max(1, kind["n"]))[:3]
    told = ", ".join(f"{kind['kind']} {kind['n_passed']} of {kind['n']}" for kind in worst)
    ui.note(f"Hardest: {ui.esc(told)}")
    st.page_link("models.py", label="All of it on the Models page", icon=":material/arrow_forward:")


@st.fragment(run_every=data.BACKLOG_S)
def _backlog(desk: Any) -> None:
    """How much waits and how fast it goes; counted again every few seconds."""
    with ui.guarded():
        waits = data.backlog(desk.store)
        rate = f"{waits.per_minute:,.1f} a minute over the last hour"
        if not waits.n_unscored:
            st.markdown(f"{ui.chip('Nothing waits', 'green', ':material/check_circle:')} :small[:gray[scored {rate}]]")
            return
        since = f"the oldest for {clock.duration((clock.now() - waits.oldest_at).total_seconds())} · " if waits.oldest_at else ""
        waiting = ui.chip(f"{waits.n_unscored:,} articles wait", "orange", ":material/hourglass_top:")
        st.markdown(f"{waiting} :small[:gray[{ui.esc(since)}scored {rate}]]")


def nothing_yet(desk: Any) -> None:
    """No article was scored yet: why, and what to do about it."""
    waits = data.backlog(desk.store)
    has_model = "sentiment" in TASKS and desk.registry.champion("sentiment") is not None
    if not waits.n_unscored:
        with ui.empty(
            "No news yet",
            "Add a feed, upload a file, or switch the demo stream on: the Data page, Sources.",
            icon=":material/rss_feed:",
            height=340,
        ):
            st.page_link("data.py", label="Open Data", icon=":material/database:")
    elif not has_model:
        words = f"{waits.n_unscored:,} articles are here and wait for a sentiment model."
        with ui.empty("Articles wait for a model", words, icon=":material/model_training:", height=340):
            st.page_link("training.py", label="Open Training", icon=":material/play_arrow:")
    else:
        ui.empty(
            "The first articles are being scored", f"{waits.n_unscored:,} wait; they appear here by themselves.",
            icon=":material/hourglass_top:", height=340,
        )  # fmt: skip
    _first_articles(desk)


@st.fragment(run_every=3.0)
def _first_articles(desk: Any) -> None:
    """Waits for the first scored article."""
    if data.options(desk.store, data.stamp(desk.store)).sources:
        st.rerun()


# ---------------------------------------------------------------- taking it away


def exports(desk: Any, at: data.Stamp, view: Any, now: index.Overall, line: pd.DataFrame) -> None:
    """CSV and the HTML report of what is on the screen; made when asked for, when there is no screen any more: what the viewer chose is
    taken down here."""
    seen = Screen(view, now, _order(), _by(), ui.zone(), stories.window(view.filters))
    with st.popover("Export", icon=":material/download:"):
        ui.download("Index as CSV", index_table(line), "sentiment-index.csv", key="sent_csv_index", type="tertiary")
        found = data.stories(desk.store, at, view.filters, IN_REPORT, _order())
        ui.download(
            f"{len(found):,} stories as CSV", stories_table(found), "sentiment-stories.csv", key="sent_csv_stories", type="tertiary"
        )
        st.download_button(
            "Report as HTML", lambda: html_report(desk, at, seen, line), "sentiment.html", "text/html", key="sent_html",
            type="tertiary", on_click="ignore", icon=":material/description:",
        )  # fmt: skip
        ui.note("The report stands alone: it asks nothing of any network.")


@dataclass(frozen=True)
class Screen:
    """What a viewer looked at: filters, headline, order of the stories, whose movers, zone, and the window in words of that zone."""

    view: Any
    now: index.Overall
    order: str
    by: str
    zone: dt.tzinfo
    window: str


def _by() -> str:
    chosen = st.session_state.get("sent_by", "ticker")
    return chosen if chosen in index.BY else "ticker"


def _order() -> str:
    chosen = st.session_state.get("sent_order", "newest")
    return chosen if chosen in stories.ORDERS else "newest"


def index_table(line: pd.DataFrame) -> pd.DataFrame:
    """The series as a table for a spreadsheet: moments in UTC as ISO text, empty where there is not enough news."""
    table = line.assign(bucket=line["bucket"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return table.rename(columns={"bucket": "bucket_utc"})


def stories_table(found: pd.DataFrame) -> pd.DataFrame:
    """The stories as a table for a spreadsheet."""
    table = found.assign(
        published_at=found["published_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"), tickers=[" ".join(names) for names in found["tickers"]]
    )
    return table.rename(columns={"published_at": "published_at_utc", "lexicon": "vader"})


def html_report(desk: Any, at: data.Stamp, screen: Screen, line: pd.DataFrame) -> str:
    """What was on the screen as one HTML file (fmcore.sentiment.report)."""
    from pages import sentiment

    view, now = screen.view, screen.now
    before = "nothing before" if now.change is None else f"{ui.signed(now.change)} vs {view.range} before"
    share = f"{now.n_negative / now.n_stories:.0%} of {now.n_stories:,} stories" if now.n_stories else "no stories"
    value = "not enough news" if now.index is None else ui.signed(now.index)
    moved = data.movers(desk.store, at, view.filters, screen.by, sentiment.RANGES[view.range] or 30)
    moved = moved[moved["enough"]].head(sentiment.N_MOVERS).rename(columns={"index": "now"})
    seen = report.View(
        title="Sentiment", window=f"{screen.window} ({screen.zone})", filters=sentiment.in_words(view), bucket=view.bucket,
        zone=str(screen.zone),
        headline=[
            report.Figure("Net sentiment, −1 to +1", value, f"{before}; n = {now.n_stories:,}"),
            report.Figure("Articles", f"{now.n_articles:,}", f"{now.n_stories:,} stories"),
            report.Figure("Negative stories", f"{now.n_negative:,}", share),
        ],
        models=models_in_words(desk), generated_at=f"{clock.now():%Y-%m-%d %H:%M} UTC", synthetic=data.synthetic(desk.store, at),
    )  # fmt: skip
    found = data.stories(desk.store, at, view.filters, IN_REPORT, screen.order)
    return report.html(seen, series=line, stories=found, movers=moved, zone=screen.zone)


def models_in_words(desk: Any) -> str:
    """Which versions scored: "sentiment v1, topic v2; VADER beside them"."""
    live = [f"{task} {c.version}" for task in ("sentiment", "topic") if task in TASKS and (c := desk.registry.champion(task))]
    return f"{', '.join(live) or 'no model is live now'}; VADER beside them"
