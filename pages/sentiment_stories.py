"""Stories behind a trend, as a list or in a drawer: source, link, score and why it was given, copies, the lexicon's opinion beside.

Draws what fmcore.sentiment.evidence finds; why a score was given is why.py's part. Titles, sources and addresses are outside text: shown
as text, links http or https only.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import streamlit as st

from fmcore.nouns import Filters
from fmcore.sentiment import evidence
from fmcore.sentiment.scoring import scored_text
from pages import ui, why

TASK = "sentiment"

IN_DRAWER = 30
ORDERS = {"newest": "Newest", "negative": "Most negative", "articles": "Most told"}


def draw(desk: Any, stories: pd.DataFrame, *, key: str) -> None:
    """Each story as two lines and a button that opens what is behind its score."""
    for row in stories.itertuples(index=False):
        with st.container(gap="xxsmall"):
            _story(desk, row, key=f"{key}-{row.story_id}")


def _story(desk: Any, row: Any, *, key: str) -> None:
    opened: set[str] = st.session_state.setdefault("sent_opened", set())
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        title = ui.esc(ui.short(row.title, 180)) or "No title"
        st.markdown(f"{ui.score_chip(row.sentiment, row.net)} **{title}**  \n:small[:gray[{meta(row)}]]", width="stretch")
        st.button(
            "Why?", key=f"why-{key}", type="tertiary", icon=":material/expand_less:" if key in opened else ":material/expand_more:",
            on_click=_toggle, args=(key,), help="The words that drove the score, and the copies",
        )  # fmt: skip
    if key in opened:
        with st.container(border=True, gap="xsmall"):
            _behind(desk, row, key=key)


def _toggle(key: str) -> None:
    opened: set[str] = st.session_state.setdefault("sent_opened", set())
    opened.symmetric_difference_update({key})


def meta(row: Any) -> str:
    """Source, time, topic, copies, VADER and link of a story, as markdown on one line."""
    parts = [ui.esc(row.source), ui.local(row.published_at)]
    if row.topic:
        parts.append(ui.esc(row.topic))
    n_copies = int(row.n_articles) - 1
    if n_copies > 0:
        parts.append(f"+{n_copies:,} {'copy' if n_copies == 1 else 'copies'}, first here")
    parts.append(f"VADER {ui.signed(row.lexicon)}")
    parts.append(ui.link(row.url) or "no link")
    return " · ".join(parts)


def _behind(desk: Any, row: Any, *, key: str) -> None:
    """The three probabilities, why the score was given, and where the story was told."""
    st.markdown(
        f":small[:gray[Model: negative {row.p_negative:.0%}, neutral {row.p_neutral:.0%}, positive {row.p_positive:.0%}. "
        f"Lexicon (VADER, beside it): {ui.signed(row.lexicon)}, {_agrees(row)}.]]"
    )
    explain(desk, row.document_id, published_at=row.published_at, title=row.title, key=f"words-{key}")
    if row.n_articles > 1:
        _copies(desk, row)


def explain(desk: Any, document_id: str, *, published_at: dt.datetime, title: str, key: str) -> None:
    """Why a story's article got its net score: the text that was read then, asked of the version that read it. title: for a document
    that is not kept any more."""
    found = evidence.article(desk.store, document_id, published_at=published_at) or {}
    text = scored_text(found.get("title") or title, found.get("body", ""))
    version = found.get("sentiment_version")
    if version not in {known.version for known in desk.registry.versions(TASK)}:
        if version:
            ui.note(f"Scored by {ui.esc(version)}, which is not here any more: the live version is asked.")
        version = None
    why.draw(desk, TASK, text, version=version, key=key, target="net", compact=True)
    ui.note("▲ towards positive · ▼ towards negative · the stronger the tint, the more the word moves the score")


def _agrees(row: Any) -> str:
    return "the same side" if ui.sign_of(row.net) == ui.sign_of(row.lexicon) else "another side"


def _copies(desk: Any, row: Any) -> None:
    told = evidence.copies(desk.store, row.story_id, published_at=row.published_at)
    lines = [
        f"{'**first:** ' if i == 0 else ''}{ui.esc(copy.source)} · {ui.local(copy.published_at)} · {ui.link(copy.url) or 'no link'}"
        for i, copy in enumerate(told.head(10).itertuples(index=False))
    ]
    rest = f"  \nand {len(told) - 10:,} more" if len(told) > 10 else ""
    st.markdown(f":small[Told {len(told):,} times]  \n:small[" + "  \n".join(lines) + rest + "]")


# ---------------------------------------------------------------- the drawer


def open_drawer(title: str, filters: Filters, *, order: str = "newest") -> None:
    """Ask for the drawer at the next run; called in a click's callback."""
    st.session_state["sent_drawer"] = {"title": title, "filters": filters, "order": order}
    st.session_state["sent_drawer_order"] = order


def close_drawer() -> None:
    """The drawer was closed: charts forget what was clicked, so that the same point can be clicked again."""
    st.session_state.pop("sent_drawer", None)
    st.session_state["sent_clicks"] = st.session_state.get("sent_clicks", 0) + 1


def is_open() -> bool:
    """Whether somebody reads in the drawer: the page is not drawn anew under them."""
    return "sent_drawer" in st.session_state


def drawer(desk: Any) -> None:
    """The drawer, where one was asked for."""
    asked = st.session_state.get("sent_drawer")
    if asked:
        st.dialog(ui.esc(ui.short(asked["title"], 90)), position="right", width=620, icon=":material/article:", on_dismiss=close_drawer)(
            _in_drawer
        )(desk, asked["filters"], asked["order"])


def _in_drawer(desk: Any, filters: Filters, order: str) -> None:
    with ui.guarded():
        chosen = st.segmented_control(
            "Order", list(ORDERS), key="sent_drawer_order", required=True, format_func=ORDERS.get,
            label_visibility="collapsed",
        )  # fmt: skip
        found = evidence.stories(desk.store, filters, limit=IN_DRAWER + 1, order=chosen if chosen in ORDERS else order)
        if not len(found):
            st.markdown("No story stands here now: its articles may have joined an older story.")
            return
        more = f"first {IN_DRAWER} stories" if len(found) > IN_DRAWER else f"{len(found)} stories"
        ui.note(f"{more} · {window(filters)} · times in {ui.esc(ui.zone())}")
        draw(desk, found.head(IN_DRAWER), key="drawer")


def window(filters: Filters) -> str:
    """A window in words, in the viewer's zone."""
    start = ui.local(filters.start) if filters.start else "the beginning"
    return f"{start} to {ui.local(filters.end) if filters.end else 'now'}"


def around(bucket_at: dt.datetime, bucket_s: int, filters: Filters, **side: tuple[str, ...]) -> Filters:
    """The filters of one bucket, with one side narrowed where a cell was clicked."""
    kept = {"topics": filters.topics, "tickers": filters.tickers, "sources": filters.sources, **side}
    return Filters(**kept, start=bucket_at, end=bucket_at + dt.timedelta(seconds=bucket_s))
