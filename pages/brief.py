"""The morning brief: what changed most against expectation, each line with its numbers, its top story and the way to the rest.

Draws what fmcore.sentiment.digest says; the watchlist is edited here and kept for the whole desk.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from fmcore import clock
from fmcore.nouns import FMError
from fmcore.sentiment import digest
from pages import sentiment_data as data
from pages import ui

LIMIT = 5
KINDS = {
    "more negative news": ("▼", "red", "bad news surges"),
    "fell": ("▼", "red", "turned more negative"),
    "rose": ("▲", "green", "turned more positive"),
}
"""kind -> glyph, badge colour, what happened."""


def draw(desk: Any) -> None:
    """The card, with its lines, or with why there are none."""
    at = data.stamp(desk.store)
    watched = digest.watchlist(desk.store)
    there = data.options(desk.store, at)
    if not there.sources:
        ui.card("Morning brief")
        st.markdown("No news was scored yet. The brief needs a source of news and a sentiment model.")
        st.page_link("sentiment.py", label="See what is missing", icon=":material/arrow_forward:")
        return
    brief = data.brief(desk.store, at, data.now(), watched, LIMIT)
    about = f"{brief.n_articles:,} articles, {brief.n_stories:,} stories in 24 h, against the {digest.DAYS} days before"
    row = st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute")
    with row.container(width="content"):
        ui.card("Morning brief", ui.esc(about), ui.synthetic_mark() if data.synthetic(desk.store, at) else "")
    with row:
        _watchlist(desk, watched, there.tickers)
    if brief.refusal:
        waiting = data.backlog(desk.store).n_unscored
        st.markdown(ui.esc(brief.refusal) + (f" {waiting:,} articles wait to be scored, the oldest first." if waiting else ""))
    elif not brief.lines:
        whom = "the watchlist" if watched else "all tickers and topics"
        st.markdown(f"Nothing out of the ordinary: no change of {whom} is {digest.LEAST_SURPRISE:g} standard deviations or more.")
    for line in brief.lines:
        _line(line)
    whom = "watchlist: " + ", ".join(watched[:8]) + (" …" if len(watched) > 8 else "") if watched else "all tickers and topics"
    as_of = f"as of {ui.local(brief.until)} ({ui.zone()})"
    ui.note(f"Ranked by surprise, in standard deviations · {ui.esc(as_of)} · {ui.esc(whom)}")


def _line(line: digest.Line) -> None:
    """A number, a sentence made of numbers, the story that says most, and the way to its evidence."""
    glyph, color, words = KINDS[line.kind]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        st.markdown(ui.chip(f"{glyph} {line.surprise:.1f} sd", color), width=82)
        story = f"  \n:small[:gray[‘{ui.esc(ui.short(line.top_story, 110))}’]]" if line.top_story else ""
        st.markdown(f"**{ui.esc(line.key)}: {words}.** {ui.esc(line.text)}{story}", width="stretch")
        st.page_link(
            "sentiment.py", label="Open", icon=":material/arrow_forward:", icon_position="right",
            query_params={"sent_range": "24 h", f"sent_{line.dimension}": line.key},
            help=f"{len(line.evidence)} stories of evidence, and all others",
        )  # fmt: skip


def _watchlist(desk: Any, watched: tuple[str, ...], tickers: tuple[str, ...]) -> None:
    """Which tickers the brief is about; one list for the desk, empty means all."""
    with st.popover("Watchlist", icon=":material/visibility:"):
        options = sorted({*tickers, *watched})
        chosen = st.multiselect("Tickers to watch", options, default=list(watched), key="watchlist", placeholder="All tickers and topics")
        if st.button("Save", key="watchlist_save", type="primary", icon=":material/save:"):
            try:
                digest.watch(desk.store, chosen, by=ui.who(), now=clock.now())
            except FMError as error:
                ui.refusal(error)
                return
            st.rerun()
        ui.note("One list for everyone at this desk; empty means all tickers and topics.")
