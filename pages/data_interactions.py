"""A data set of interactions, a part of the Data page: how much there is, how it is split, some pasts and some items.

Draws what fmcore.data.interactions says of a log; reads nothing but sets of the catalogue.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import streamlit as st

from fmcore.data import demo_shop, interaction_files
from fmcore.data.interactions import Interactions, leave_one_out
from fmcore.nouns import Dataset
from pages import ui

SAMPLE = 6
LATEST = 4
"""Titles shown of a past."""


def draw(entry: Dataset) -> None:
    """The whole view of one set."""
    changed_at = entry.path.stat().st_mtime if entry.path and entry.path.exists() else 0.0
    data = _read(entry.name, str(entry.path), changed_at)
    _figures(data)
    st.markdown(f"**Some people** :small[:gray[what they met last, the newest first; {ui.esc(_span(data))}]]")
    pasts = people(data)
    st.dataframe(pasts, hide_index=True, row_height=34, alt=f"{len(pasts)} people of the set and their latest items")
    st.markdown("**Some items** :small[:gray[as a text model reads them]]")
    items = data.catalogue()
    shown = items.iloc[np.unique(np.linspace(0, len(items) - 1, SAMPLE).astype(int))]
    titled = shown.rename(columns={"item": "Item", "title": "Title", "text": "Text"})
    st.dataframe(titled, hide_index=True, row_height=34, alt=f"{len(shown)} items of the set")


@st.cache_data(max_entries=3, show_spinner="Reading the rows")
def _read(name: str, _where: str, _changed_at: float) -> Interactions:
    return interaction_files.load(name)


def _figures(data: Interactions) -> None:
    split = leave_one_out(data.histories())
    n_met = data.rows["item"].nunique()
    lengths = np.bincount(data.rows["user"])
    rows = [
        ("People", len(data.users)), ("Items", len(data.items)), ("Items that nobody has met", len(data.items) - n_met),
        ("Interactions", len(data.rows)), ("Items of a person (median)", int(np.median(lengths))),
        ("Test items", int((split.test >= 0).sum())),
    ]  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="top", gap="medium"):
        with st.container(width=340):
            table = pd.DataFrame(rows, columns=["What", "How many"])
            counted = {"How many": st.column_config.NumberColumn(format="localized")}
            st.dataframe(table, hide_index=True, row_height=34, column_config=counted, alt="Size of the data set")
        with st.container(width=540, gap="xsmall"):
            if data.synthetic:
                st.markdown(ui.synthetic_mark() + " Written and simulated for this demo; nobody clicked on any of it.")
            st.markdown(
                "Split by time, never at random: a person's last item is the test's, the one before it validation's, "
                "and models learn from what came earlier. Items of one moment keep the order of the file."
            )
            for said in data.notes:
                ui.note(ui.esc(said))
            ui.note(f"Split sha256 `{data.split_hash}`")


def people(data: Interactions) -> pd.DataFrame:
    """A few people spread evenly over the log, columns Person, Stated taste (where the set says it), Items, Latest."""
    histories = data.histories()
    chosen = range(0, len(histories), max(1, len(histories) // SAMPLE))
    tastes = demo_shop.tastes() if data.name == "demo_shop" else {}
    rows = []
    for number in list(chosen)[:SAMPLE]:
        latest = [data.titles[item] or data.items[item] for item in histories[number][::-1][:LATEST]]
        stated = ", ".join(demo_shop.TOPICS[topic] for topic in tastes.get(data.users[number], ()))
        rows.append({"Person": data.users[number], "Stated taste": stated, "Items": len(histories[number]), "Latest": " ← ".join(latest)})
    frame = pd.DataFrame(rows)
    return frame if tastes else frame.drop(columns="Stated taste")


def _span(data: Interactions) -> str:
    """From when to when the log goes."""
    first, last = (dt.datetime.fromtimestamp(int(at), tz=dt.UTC) for at in (data.rows["at"].min(), data.rows["at"].max()))
    return f"{first:%d %b %Y} to {last:%d %b %Y}"
